"""Which part of an answer is the program. What it computes is for the sandbox, in test_code."""

import time

import pytest

from ioa_jax.graders.code import complete_function, continue_program, find_program
from ioa_jax.graders.programs import defines, is_complete, with_head

HEAD = "import math\nfrom typing import List\n\n\ndef half(x):\n    return x / 2\n\n\n"
PROMPT = HEAD + 'def area(r):\n    """Area of a circle."""\n'
RIGHT = "def area(r):\n    return math.pi * r * r\n"
STUB = 'def area(r):\n    """Area of a circle."""\n'
WRONG = "def area(r):\n    return 0\n"


def fence(code, language="python"):
    return f"```{language}\n{code}```\n"


def run(code, argument=1):
    names = {}
    exec(code, names)
    return names["area"](argument)


ANSWERS = {
    "the stub again": fence(RIGHT) + "The stub was:\n" + fence(STUB),
    "a stub that raises": fence(RIGHT) + fence("def area(r):\n    raise NotImplementedError\n"),
    "the last of two": fence(WRONG) + "Better:\n" + fence(RIGHT),
    "a counterexample": fence(RIGHT) + "This is wrong:\n" + fence(WRONG),
    "a correction": fence(WRONG) + "This fixes the wrong line:\n" + fence(RIGHT),
    "cut short": fence(RIGHT) + "Again:\n```python\ndef area(r):\n    return (",
    "a use of it": fence(RIGHT) + fence("print(area(3))\n"),
    "an import of it": fence(RIGHT) + fence("from circles import area\nprint(area(3))\n"),
    "a helper of its own": fence("def square(x):\n    return x * x\n")
    + fence("def area(r):\n    return math.pi * square(r)\n"),
    "a helper's helper after it": fence("def area(r):\n    return PI * square(r)\n")
    + fence("def square(x):\n    return power(x, 2)\n")
    + fence("PI = math.pi\ndef power(x, n):\n    return x ** n\n"),
    "a fence in the docstring": fence(
        'def area(r):\n    """So:\n    ```\n    x\n    ```\n    """\n    return math.pi * r * r\n'
    ),
    "a longer fence": "````python\n" + RIGHT + "````\n",
    "tildes": "~~~python\n" + RIGHT + "~~~\n",
    "a closing fence alone": RIGHT + "```\nIt squares.\n",
    "no closing fence": "```python\n" + RIGHT + "\nIt squares the radius.",
    "no closing fence before the next": "```python\n" + STUB + "```python\n" + RIGHT + "```\n",
    "a byte order mark": fence("\ufeff" + RIGHT),
    "carriage returns": fence(RIGHT).replace("\n", "\r"),
    "both line ends": fence(RIGHT).replace("\n", "\r\n"),
    "tabs": fence(RIGHT.replace("    ", "\t")),
    "a session": fence(">>> def area(r):\n...     return math.pi * r * r\n...\n>>> area(0)\n0.0\n"),
    "a session of IPython": fence(
        "In [1]: def area(r):\n   ...:     return math.pi * r * r\n   ...:\n"
        "In [2]: area(0)\nOut[2]: 0.0\n"
    ),
    "spaces that don't break": fence(RIGHT.replace("    ", "\u00a0" * 4)),
    "a space of no width": fence("\u200b" + RIGHT),
    "under a condition": fence("if True:\n    def area(r):\n        return math.pi * r * r\n"),
    "in a try": fence("try:\n    import numpy as nothing\nexcept ImportError:\n    pass\n" + RIGHT),
    "an annotated lambda": fence("area: object = lambda r: math.pi * r * r\n"),
    "a class": fence("class Solution:\n    def area(self, r):\n        return math.pi * r * r\n"),
    "a quotation": "".join(f"> {line}\n" for line in fence(RIGHT).splitlines()),
    "a list": "1. So:\n" + "".join(f"   {line}\n" for line in fence(RIGHT).splitlines()),
    "a call of a tool": '{"name": "run", "arguments": {"code": "def area(r):\\n    '
    'return math.pi * r * r\\n"}}',
    "no fence, and a draft": "I first had\n\n" + WRONG + "\nbut it is\n\n" + RIGHT + "\nEnjoy!",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_the_program_in_an_answer(answer):
    found = complete_function(answer, PROMPT, "area")
    assert run(found.code) == pytest.approx(3.14159, abs=1e-4)
    # MBPP has no prompt to begin with.
    assert run("import math\n" + find_program(answer, "area").code) == pytest.approx(
        3.14159, abs=1e-4
    )


BODIES = {
    "with tabs": "```python\n\treturn math.pi * r * r\n```",
    "a closing fence alone": "    return math.pi * r * r\n```\nIt squares.",
    "a byte order mark": "\ufeff    return math.pi * r * r\n",
    "carriage returns": "    x = r * r\r    return math.pi * x\r",
}


@pytest.mark.parametrize("answer", BODIES.values(), ids=list(BODIES))
def test_the_rest_of_a_function(answer):
    found = complete_function(answer, PROMPT, "area")
    assert found.rule in ("fence_body", "bare_body")
    assert run(found.code) == pytest.approx(3.14159, abs=1e-4)


def test_of_the_prompts_head_only_what_the_answer_lacks():
    whole = complete_function(fence(HEAD + RIGHT), PROMPT, "area").code
    assert whole == HEAD + RIGHT
    some = complete_function(fence("def half(x):\n    return x * .5\n\n" + RIGHT), PROMPT, "area")
    assert some.code.count("def half") == 1
    assert "x * .5" in some.code
    assert some.code.startswith("import math\nfrom typing import List\n")
    none = complete_function(fence(RIGHT), PROMPT, "area")
    assert none.code == HEAD + RIGHT


def test_future_imports_come_first():
    code = with_head(HEAD, "from __future__ import annotations\n" + RIGHT)
    assert code.startswith("from __future__ import annotations\nimport math\n")
    assert run(code) == pytest.approx(3.14159, abs=1e-4)
    answer = fence("from __future__ import annotations\n\n" + RIGHT)
    assert run(complete_function(answer, PROMPT, "area").code)


def test_without_a_definition_the_longest_block_is_the_program():
    found = find_program(fence("x\n") + fence("def other():\n    return 1\n"), "area")
    assert found == ("def other():\n    return 1\n", "fence_other")


@pytest.mark.parametrize(
    ("code", "defined", "complete"),
    [
        (RIGHT, True, True),
        (STUB, True, False),
        ("def area(r): ...\n", True, False),
        ("def area(r):\n    return (", True, False),
        ("async def area(r):\n    return 1\n", True, True),
        ("from circles import area\n", True, True),
        ("area, other = 1, 2\n", True, True),
        ("area: int\n", False, False),
        ("def other():\n    def area(): pass\n", False, False),
        ("class Solution:\n    def area(self): pass\n", True, False),
        ("print(area)\n", False, False),
    ],
)
def test_what_defines_a_name(code, defined, complete):
    assert defines(code, "area") == defined
    assert is_complete(code, "area") == complete


@pytest.mark.parametrize("text", ["", " \n", "\ufeff", "\r"])
def test_an_empty_answer(text):
    assert complete_function(text, PROMPT, "area").rule == "empty"
    assert find_program(text, "area").rule == "empty"


def test_a_continuation_ends_at_done():
    assert continue_program("x = 1\n[DONE]\ny") == ("x = 1\n", "program")


@pytest.mark.parametrize(
    "piece",
    [
        "```python\n",
        "```python\ndef area(r):\n    return 1\n```\n",
        "def area(r):\n",
        "def area(r):\n    return area2(r)\n",
        '"""\n',
        '\\"',
        "(",
        "> ```\n",
        ">>> x\n",
        "{",
    ],
)
def test_long_answers_take_no_long_time(piece):
    answer = piece * (150_000 // len(piece))
    start = time.process_time()
    complete_function(answer, PROMPT, "area")
    find_program("```python\n" + answer, "area")
    assert time.process_time() - start < 10
