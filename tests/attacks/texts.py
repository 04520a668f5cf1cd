"""Broken JSON and YAML, and texts of models that are none."""

N = 20_000

# A line in whose place {"a": ...} is right.
JSON = {
    "nested lists": "[" * 5000 + "]" * 5000,
    "nested objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "open brackets": "[" * N,
    "an integer of 5,000 digits": '{"a": ' + "9" * 5000 + "}",
    "NaN": '{"a": NaN}',
    "minus infinity": '{"a": -Infinity}',
    "1e999": '{"a": 1e999}',
    "half a surrogate pair": r'{"a": "\ud83d"}',
    "a key twice": '{"a": 1, "a": 2}',
    "an end that is missing": '{"a": "b',
    "a comma too many": '{"a": 1,}',
    "single quotes": "{'a': 1}",
    "a comment": '{"a": 1} // one',
    "two values": '{"a": 1} {"a": 2}',
    "a control character": '{"a": "\x01"}',
    "a zero byte": '{"a": "\0"}',
    "an array": "[1, 2]",
    "a text": '"a"',
    "a number": "7",
    "null": "null",
    "words": "no JSON at all",
    "a mark in the middle": '\ufeff{"a": 1}',
}

YAML = {
    "aliases of aliases": "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(12)
    ),
    "an alias of itself": "a: &a [*a]\n",
    "nested lists": "a: " + "[" * 2000 + "]" * 2000,
    "tabs": "a:\n\tb: 1\n",
    "a Python object": "a: !!python/object/apply:os.system ['true']\n",
    "an integer of 5,000 digits": "a: " + "9" * 5000 + "\n",
    "a date that is none": "a: 2024-99-99\n",
    "a timestamp that is none": "a: !!timestamp x\n",
    "a number that is none": "a: !!int x\n",
    "a truth value that is none": "a: !!bool x\n",
    "no mapping": "- a\n- b\n",
    "a text": "a",
    "nothing": "",
    "a number as a name": "1: 2\n",
    "a name that is a list": "? [a, b]\n: c\n",
    "not a number": "a: .nan\n",
    "infinity": "a: .inf\n",
    "half a surrogate pair": 'a: "\\ud83d"\n',
    "a zero byte": 'a: "\\0"\n',
    "an end that is missing": "a: {b: [1, 2\n",
    "two documents": "a: 1\n---\na: 2\n",
}

# None has JSON that fits, and none takes long.
ANSWERS = {
    **{f"JSON, {name}": text for name, text in JSON.items()},
    "quotes": '{"' * (N // 2),
    "escaped quotes": '{"a":"' + '\\"' * N,
    "braces": "{ x " * N,
    "comments": "{" + "/*" * N + "}",
    "backslashes": "{" + "\\" * N + "}",
    "fences": "```json\n" * (N // 4),
    "thoughts": "<think>" * N,
    "thoughts that end": "<think></think>" * N,
    "channels": "<|channel|>" * N,
    "nothing": "",
    "blanks": " " * N,
    "zero bytes": "\0" * N,
    "labels": "Problem" + " " * N + "Problem" + "\t" * N,
    "stars": "*" * N,
    "boxes": "\\boxed{" * N,
    "boxes that end": "\\boxed{" * N + "}" * N,
    "statements": "the answer is " * N,
    "hashes": "#### " * N,
    "digits": "9" * N,
    "commas": "1," * N,
    "dollars": "$.," * N,
    "combining marks": "\u0301" * N,
    "lines": "\n" * N,
    "definitions": "def f():\n" * N,
    "brackets of Python": "def f(): return " + "(" * N,
    "a literal in base 16": "def f():\n    return 0x" + "f" * 6000 + "\n",
    "quotation marks of Python": 'def f(): """' * N,
}

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"
# None gives back a chat.
TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a large text": "{% set x = 'a' * 10000000000 %}",
    "a text that doubles": "{% set n = namespace(x='a') %}{% for i in range(60) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a list that doubles": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "a power": "{{ 9 ** 9 ** 9 }}",
    "squares": "{% set n = namespace(x=3) %}{% for i in range(60) %}"
    "{% set n.x = n.x * n.x %}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a wide text": "{{ 'a'.ljust(10000000000) }}",
    "a wide number": "{{ '%10000000000d' % 1 }}",
    "a wide format": "{{ '{:>10000000000}'.format(1) }}",
    "a centred text": "{{ 'a'|center(10000000000) }}",
    "a large list": "{% set x = [0] * 10000000000 %}",
    "a batch": "{{ [1]|batch(10000000000, 0)|list }}",
    "a large replacement": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "patterns": "{{ ('<' * 10000000)|striptags }}",
    "an open block": "{% for %}",
    "an unknown filter": "{{ 1|nothing }}",
    "an unknown name": "{{ a.b.c }}",
    "a division by zero": "{{ 1 // 0 }}",
    "an error of its own": "{{ raise_exception('no') }}",
    "a way out": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "an import": "{% import 'os' as os %}{{ os.system('true') }}",
    "deep brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep blocks": "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "what it leaves out": "{{ 1 }}",
    "what is no text": "{{ messages.content.x }}",
    "a large template": "a" * 1_000_000,
}
