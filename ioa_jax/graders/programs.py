"""What of an answer is the program: code blocks, definitions in them, and what they need.

The functions here read Python without running it. Of an answer of bounded length their work is
bounded: each reads the text a few times, and at most `MOST_BLOCKS` blocks are looked at.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

from ioa_jax.json_text import parse_served_json

MOST_BLOCKS = 50  # of an answer, the last ones
_LONGEST_LINE = 2000  # in which quotation marks are looked for

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})([^`\n]*)\Z")
_QUOTE = re.compile(r"\"\"\"|'''|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|#.*", re.DOTALL)
_CODE_START = re.compile(
    r"^(?:(?:async )?def \w+\s*\(|class \w+\s*[:(]|@\w|import \w[\w., ]*$|from [\w.]+ import )"
)
_CODE_LINE = re.compile(_CODE_START.pattern + r"|^(?:[ \t]|#|\)|\]|\}|\w+ *=[^=]|$)")
_FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)
# Of Python's own session and of IPython's.
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.:?|In \[\d+\]:)(?: |$)")
_FIRST_PROMPT = re.compile(r"[ \t]*(?:>>>|In \[\d+\]:)")
_MARGIN = re.compile("^[ \t\u00a0\u200b]+", re.MULTILINE)
_COUNTEREXAMPLE = re.compile(
    r"\b(?:wrong|incorrect|incorrectly|buggy|broken|faulty|counter-?example|mistake|"
    r"(?:does not|doesn't|won't|will not) work)\b",
    re.IGNORECASE,
)
_CORRECTION = re.compile(r"\b(?:fix\w*|correct\w*|right|instead|better)\b", re.IGNORECASE)
_TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)

# What warnings are caught for is the process's, not a thread's.
_parsing = threading.Lock()


class Block(NamedTuple):
    """A code block of an answer.

    Attributes:
        code: What it holds, as far as it is code; not indented with the list that it is in.
        opened: Whether its opening fence stands in the answer.
        closed: Whether its fence is closed.
        counterexample: Whether the line before it says that it is wrong.
    """

    code: str
    opened: bool
    closed: bool
    counterexample: bool


def with_plain_lines(text: str) -> str:
    """Without byte order marks, with line feeds alone as line ends, indented by plain spaces."""
    text = text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")
    return _MARGIN.sub(lambda m: m[0].replace("\u00a0", " ").replace("\u200b", ""), text)


def blocks(answer: str, name: str = "") -> list[Block]:
    """An answer's code blocks that aren't blank; the last `MOST_BLOCKS` of them.

    A fence in a text of the program, such as its docstring, ends no block. A text that begins with
    code and has a fence after it is a block, too: its opening fence stands in the prompt. So are
    the texts that a call of a tool passes on.

    Args:
        answer: With plain lines.
        name: What the program has to define; tells code from prose before a lone fence.
    """
    passed = _passed_to_tool(answer)
    if passed:
        return [Block(code, True, True, False) for code in passed][-MOST_BLOCKS:]
    found = _fenced(answer, name)
    if not found and re.search(r"^> ?(?:```|~~~)", answer, re.MULTILINE):
        found = _fenced(re.sub(r"^> ?", "", answer, flags=re.MULTILINE), name)
    return found[-MOST_BLOCKS:]


def choose(found: Sequence[Block], name: str) -> Block | None:
    """The block that defines a name, with the helpers that stand in others; None if none does.

    The last complete definition that isn't a stub and isn't called wrong; or else the last that is
    closed; or else the last. One that only imports the name uses what another defines.
    """
    defining = [block for block in found if defines(block.code, name)]
    if not defining:
        return None
    defining = [block for block in defining if not _only_imports(block.code, name)] or defining
    best = max(
        enumerate(defining),
        key=lambda pair: (
            is_complete(pair[1].code, name) and not pair[1].counterexample,
            is_complete(pair[1].code, name),
            pair[1].closed,
            pair[0],
        ),
    )[1]
    code = _with_helpers(best.code, [block.code for block in found], name)
    return best._replace(code=code)


def defines(code: str, name: str) -> bool:
    """Whether code defines a name, or has it as a method of a class `Solution`.

    Code that can't be parsed is searched for a definition at the margin.
    """
    tree = parsed(code)
    if tree is None:
        return definition(name, code) >= 0
    return name in _bound(tree.body) or _method(tree, name) is not None


def is_complete(code: str, name: str) -> bool:
    """Whether code can be parsed and what defines the name isn't a stub."""
    tree = parsed(code)
    if tree is None:
        return False
    method = _method(tree, name)
    found: list[ast.stmt] = [
        node for node in _statements(tree.body) if name in _bound([node], deep=False)
    ]
    last = found[-1] if found else method
    return last is not None and not _is_stub(last)


def _only_imports(code: str, name: str) -> bool:
    """Whether nothing else in code binds a name that it imports."""
    tree = parsed(code)
    if tree is None:
        return False
    imports = [node for node in _statements(tree.body) if name in _bound([node], deep=False)]
    return bool(imports) and all(isinstance(one, ast.Import | ast.ImportFrom) for one in imports)


def finished(code: str, name: str) -> str:
    """The code with the name at its top level: a method of `Solution` becomes a function."""
    tree = parsed(code)
    if tree is None or name in _bound(tree.body) or _method(tree, name) is None:
        return code
    return f"{code.rstrip()}\n\n\n{name} = Solution().{name}\n"


def with_head(head: str, code: str) -> str:
    """Put a prompt's imports and helpers before a program, but for those that it has itself.

    `from __future__ import` stays first.
    """
    tree, before = parsed(code), parsed(head)
    if tree is not None and before is not None and head.strip():
        own = _bound(tree.body)
        lines = head.splitlines(keepends=True)
        missing = [node for node in before.body if not _bound([node]) <= own]
        if len(missing) < len(before.body):
            head = "".join("".join(lines[node.lineno - 1 : node.end_lineno]) for node in missing)
            head += "\n\n" if head and not head.endswith("\n") else ""
    return put_first(head, code) if head.strip() else head + code


def put_first(head: str, code: str) -> str:
    """Put statements before a program; its `from __future__ import` stays first."""
    future = _FUTURE.findall(code)
    return "".join(future) + head + _FUTURE.sub("", code) if future else head + code


def calls_something(code: str) -> bool:
    """Whether code can be parsed and has a call in it, as what only shows an output hasn't."""
    tree = parsed(code)
    return tree is not None and any(isinstance(node, ast.Call) for node in ast.walk(tree))


def definition(name: str, code: str) -> int:
    """Index where code defines the name at the margin; -1 if it doesn't."""
    return next(_definitions(name, code), -1)


def unfenced(answer: str, name: str) -> str | None:
    """The code around the last complete definition in a text without blocks; None without any.

    From the first line that begins code to the first one after the function that isn't code.
    """
    starts = list(_definitions(name, answer))[-MOST_BLOCKS:]
    found = [_code_lines(answer, start) for start in starts]
    complete = [code for code in found if is_complete(code, name)]
    return (complete or found or [None])[-1]


@functools.lru_cache(128)
def parsed(code: str) -> ast.Module | None:
    """The code's tree, not to be changed; None if it isn't Python."""
    try:
        with _parsing, warnings.catch_warnings():
            # An unknown escape in a text is a warning.
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _passed_to_tool(answer: str) -> list[str]:
    calls = _TOOL_CALL.findall(answer) or ([answer] if answer.lstrip().startswith("{") else [])
    found: list[str] = []
    for call in calls:
        try:
            read: Any = parse_served_json(call)
            arguments = read.get("arguments", read.get("parameters"))
            if isinstance(arguments, str):
                arguments = parse_served_json(arguments)
        except (ValueError, AttributeError):
            continue
        if isinstance(arguments, dict):
            values = cast("dict[str, Any]", arguments).values()
            found += [with_plain_lines(one) for one in values if isinstance(one, str)]
    return found


def _fenced(answer: str, name: str) -> list[Block]:
    found: list[Block] = []
    lines = answer.split("\n")
    before = ""  # the last line of prose
    fence, body = "", list[str]()
    quote = ""
    fences = sum(_FENCE.match(line) is not None for line in lines)
    opened = not (fences % 2 and _begins_with_code(answer, name))
    if not opened:
        fence = "```"
    for line in lines:
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, body, quote = match[1], [], ""
            elif line.strip():
                before = line
            continue
        is_fence = match is not None and not quote and match[1][0] == fence[0]
        if not is_fence:
            quote = _quote_after(line, quote)
            body.append(line)
            continue
        assert match is not None
        _add(found, body, (opened, True), before, name)
        opened = True
        # One that names a language opens the next block where this one wasn't closed.
        fence, body, quote = (match[1] if match[2].strip() else ""), [], ""
        before = ""
    if fence:
        _add(found, body, (opened, False), before, name)
    return found


def _add(
    found: list[Block], body: list[str], fences: tuple[bool, bool], before: str, name: str
) -> None:
    opened, closed = fences
    code = "\n".join(body)
    if closed:
        code += "\n"
    if not code.strip():
        return
    code = _undented(_without_prompts(code))
    if not closed and parsed(code) is None and name:
        # What comes after it is prose.
        code = unfenced(code, name) or code
    wrong = bool(_COUNTEREXAMPLE.search(before)) and not _CORRECTION.search(before)
    found.append(Block(code, opened, closed, wrong))


def _begins_with_code(answer: str, name: str) -> bool:
    first_line = next((line for line in answer.split("\n") if line.strip()), "")
    if _FENCE.match(first_line):
        return False
    fence = re.search(r"^[ \t]*(?:```|~~~)([^\n]*)", answer, re.MULTILINE)
    if fence is None or fence[1].strip():
        return False
    head = answer[: fence.start()]
    begins = first_line.startswith((" ", "\t")) or _CODE_START.match(first_line) is not None
    return begins or (bool(name) and definition(name, head) >= 0)


def _quote_after(line: str, quote: str) -> str:
    """The triple quotation marks that are open at a line's end, if they were at its beginning."""
    at = 0
    while True:
        if quote:
            end = line.find(quote, at)
            while end > 0 and line[end - 1] == "\\":
                end = line.find(quote, end + 1)
            if end < 0:
                return quote
            quote, at = "", end + 3
        match = _QUOTE.search(line, at) if len(line) <= _LONGEST_LINE else None
        if match is None:
            return ""
        at = match.end()
        if match[0] in ('"""', "'''"):
            quote = match[0]


def _without_prompts(block: str) -> str:
    """What was typed in an interpreter's session; any other block as it is."""
    lines = block.split("\n")
    first = next(line for line in lines if line.strip())
    if not _FIRST_PROMPT.match(first):
        return block
    typed = [_PROMPT.sub("", line) for line in lines if _PROMPT.match(line)]
    return "\n".join(typed) + "\n"


def _undented(block: str) -> str:
    """A block in a list is indented with it; a function's body stays as it is."""
    lines = block.splitlines(keepends=True)
    first = next((line for line in lines if line.strip()), "")
    margin = first[: len(first) - len(first.lstrip())]
    if not _CODE_START.match(first.lstrip()) or not margin:
        return block
    return "".join(line.removeprefix(margin) for line in lines)


def _code_lines(answer: str, start: int) -> str:
    kept: list[str] = []
    position = 0
    for line in answer.splitlines(keepends=True):
        is_code = (_CODE_LINE if kept else _CODE_START).match(line.rstrip("\r\n"))
        if position >= start or is_code:
            if not is_code and position > start:
                break
            kept.append(line)
        position += len(line)
    return "".join(kept)


def _definitions(name: str, code: str) -> Iterator[int]:
    name = re.escape(name)
    pattern = rf"^(?:(?:async )?def {name}\s*[(\[]|class {name}\b|{name}\s*(?::[^=\n]+)?=[^=])"
    return (match.start() for match in re.finditer(pattern, code, re.MULTILINE))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those at the top level and in its conditions and the like."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, ()))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _statements(handler.body)


def _bound(body: Sequence[ast.stmt], deep: bool = True) -> set[str]:
    """Names that statements bind at the top level."""
    found: set[str] = set()
    for node in _statements(body) if deep else body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(one.asname or one.name).split(".")[0] for one in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(node, ast.AnnAssign) and node.value is None:
                continue
            found |= {
                part.id
                for target in targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
            }
    return found


def _method(tree: ast.Module, name: str) -> ast.stmt | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == name:
                    return inner
    return None


def _is_stub(node: ast.stmt) -> bool:
    """Whether a function has a docstring, `pass`, `...` and NotImplementedError, and no more."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(
        isinstance(one, ast.Pass)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        or (isinstance(one, ast.Raise) and "NotImplemented" in ast.dump(one))
        for one in node.body
    )


def _with_helpers(code: str, others: Sequence[str], name: str) -> str:
    """Put before a program the definitions of other blocks that it uses and lacks."""
    tree = parsed(code)
    if tree is None:
        return code
    bound, used = _bound(tree.body), _used(tree)
    candidates = [
        (one, other)
        for one in others
        if one != code
        and (other := parsed(one)) is not None
        and name not in _bound(other.body)
        and _only_defines(other)
    ]
    needed: list[str] = []
    while True:
        missing = used - bound - set(dir(builtins))
        more = [(one, other) for one, other in candidates if _bound(other.body) & missing]
        if not more:
            break
        for one, other in more:
            candidates.remove((one, other))
            needed.append(one)
            bound |= _bound(other.body)
            used |= _used(other)
    if not needed:
        return code
    # In the order of the answer, and of two with one text the first.
    ordered = [one for one in dict.fromkeys(others) if one in needed]
    return with_head("".join(one.rstrip() + "\n\n\n" for one in ordered), code)


def _used(tree: ast.Module) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _only_defines(tree: ast.Module) -> bool:
    return all(
        isinstance(
            node,
            ast.FunctionDef
            | ast.AsyncFunctionDef
            | ast.ClassDef
            | ast.Import
            | ast.ImportFrom
            | ast.Assign
            | ast.AnnAssign,
        )
        for node in tree.body
    )
