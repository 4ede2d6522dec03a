#!/usr/bin/env python3
"""Render chat templates with Aerostat and with transformers' jinja2, and compare every byte and every refusal.

usage: check_templates.py BINARY [FOLDER …] [--random N] [--seed S] [--only public|cross|random] [--share PART]

BINARY is `cargo build -p aerostat-text --example render`'s. Needs `pip install transformers==5.23.0 Jinja2==3.1.6` (no
torch). Three kinds of cases: the public templates below FOLDERs (`*.jinja`), or of the source packages of
llama-cpp-python and vllm, which are downloaded into a temporary folder, with many conversations; every operator, filter,
test and method on values of every type; N random templates. Exits 1 if one differs.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile

from transformers.utils import chat_template_utils

NOW = 1721999109  # Friday, 26 July 2024, 13:05:09
PACKAGES = ["llama-cpp-python==0.3.36", "vllm==0.11.0"]


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 13, 5, 9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--random", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["public", "cross", "random"])
    parser.add_argument("--share", type=float, default=1.0, help="of the public and crossed cases, those tried")
    args = parser.parse_args()
    chat_template_utils.datetime = Clock
    failed = 0
    for name, cases in (("public", lambda: public(args.folders)), ("cross", cross),
                        ("random", lambda: randoms(args.random, args.seed))):
        if args.only in (None, name):
            drawn = random.Random(args.seed)
            share = 1.0 if name == "random" else args.share
            failed += compare(name, [case for case in cases() if drawn.random() < share], args.binary)
    sys.exit(1 if failed else 0)


def compare(name, cases, binary):
    """Prints what differs; how much does."""
    lines = "".join(json.dumps(case) + "\n" for _, case in cases)
    done = subprocess.run([binary], input=lines, stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8")
    differ, rendered, refused, skipped = 0, 0, 0, 0
    for (where, case), line in zip(cases, done.stdout.split("\n")):
        got, want = json.loads(line), python(case)
        if want is None:
            skipped += 1
        elif "error" in want and "error" in got:
            refused += 1
        elif want == got:
            rendered += 1
        else:
            differ += 1
            if differ <= 200:
                print(f"{where}\n  want {want}\n  got  {got}")
    print(f"{name}: {len(cases)} cases, {rendered} rendered the same, {refused} refused by both, {skipped} skipped, "
          f"{differ} differ", flush=True)
    return differ


def python(case):
    """What transformers gives; None where nothing certain can be expected."""
    def late(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    try:
        # As apply_chat_template does before it comes to the template.
        messages = [{k: v for k, v in m.items() if v is not None} for m in json.loads(json.dumps(case["messages"]))]
        variables = dict(case["variables"])
        text, _ = chat_template_utils.render_jinja_template(
            [messages], tools=variables.pop("tools", None), documents=variables.pop("documents", None),
            chat_template=case["template"], add_generation_prompt=case["add_generation_prompt"], **variables)
        text[0].encode("utf-8")
    except TimeoutError:
        return None
    except MemoryError:
        return None
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        signal.alarm(0)
    # Addresses, classes and complex numbers are Python's own.
    if re.search(r" at 0x[0-9a-f]{6}|<class '|<built-in |<Macro |\dj\)", text[0]):
        return None
    return {"text": text[0]}


def case(template, messages=(), prompt=False, **variables):
    return {"template": template, "messages": list(messages), "add_generation_prompt": prompt, "variables": variables,
            "now": NOW}


# Public templates

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Get the \"weather\" of a city's area\nin two lines",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "Name <of> it, e.g. 'Zürich'"},
            "days": {"type": "integer", "minimum": 1, "default": 3, "description": "How many"},
            "units": {"type": "string", "enum": ["metric", "imperial"]},
            "nested": {"type": "object", "properties": {"deep": {"type": "array", "items": {"type": "number"}}}},
            "either": {"type": ["string", "null"], "nullable": True}},
            "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "description": "Tell the time",
                                      "parameters": {"type": "object", "properties": {}, "required": []}}},
]
CALL = {"type": "function", "id": "abcdef123", "function": {
    "name": "get_weather", "arguments": {"city": "Zürich <CH>", "days": 3, "wind": 1.0, "tiny": 1e-7, "metric": True, "note": None}}}
CALL_TEXT = {"type": "function", "id": "abcdef124", "function": {"name": "get_weather", "arguments": "{\"city\": \"Bern\"}"}}


def conversations():
    user = {"role": "user", "content": "Hi there"}
    system = {"role": "system", "content": "  Be brief.\n"}
    parts = [{"type": "text", "text": " Look: "}, {"type": "image"}, {"type": "text", "text": "what?"}]
    result = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"temp\": 21.5}"}
    asked = {"role": "user", "content": "Weather in Zürich?"}
    yield "user", [user], {}
    yield "system", [system, user], {}
    yield "developer", [{"role": "developer", "content": "Do."}, user], {}
    yield "turns", [system, user, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nUno."},
                    {"role": "user", "content": "Two? <b>&amp;'\""}, {"role": "assistant", "content": " Dos. "}, user], {}
    yield "reasoning", [user, {"role": "assistant", "content": "A", "reasoning_content": "because\nso"}, user], {}
    yield "wrong order", [{"role": "assistant", "content": "I start"}, user], {}
    yield "two users", [user, user], {}
    yield "two systems", [system, system, user], {}
    yield "unknown role", [{"role": "narrator", "content": "x"}], {}
    yield "empty content", [system, {"role": "user", "content": ""}, {"role": "assistant", "content": ""}, user], {}
    yield "nothing", [], {}
    yield "unicode", [{"role": "user", "content": "日本 👩‍👩‍👧 \u00a0x\u2028y\u200b ﷽ ŉ"}], {}
    yield "white", [{"role": "user", "content": "\n\n  a\t\r\nb \n"}], {}
    yield "parts", [{"role": "user", "content": parts}], {}
    yield "system parts", [{"role": "system", "content": parts[:1]}, {"role": "user", "content": parts[:1]}], {}
    yield "audio and video", [{"role": "user", "content": [{"type": "audio"}, {"type": "video"}, {"type": "text", "text": "?"}]}], {}
    yield "tools", [user], {"tools": TOOLS}
    yield "tools, system", [system, user], {"tools": TOOLS}
    yield "no tools", [user], {"tools": []}
    for name, call in (("call", CALL), ("call as text", CALL_TEXT)):
        for content in (None, "", "Let me see."):
            message = {"role": "assistant", "content": content, "tool_calls": [call]}
            yield f"{name}, {content!r}", [system, asked, message, result, {"role": "assistant", "content": "21.5 °C."}, user], {"tools": TOOLS}
            yield f"{name}, {content!r}, open", [asked, message, result], {"tools": TOOLS}
    absent = {"role": "assistant", "tool_calls": [CALL, CALL_TEXT]}
    yield "two calls", [asked, absent, result, dict(result, tool_call_id="abcdef124", content="5")], {"tools": TOOLS}
    yield "reasoned call", [asked, dict(absent, reasoning="So.", content="")], {"tools": TOOLS}
    yield "last is assistant", [user, {"role": "assistant", "content": "Well,"}], {}
    documents = [{"title": "T1", "text": "Some text"}, {"title": "T2", "text": "More", "contents": "c", "doc_id": 2}]
    yield "documents", [user], {"documents": documents}


KWARGS = [{}, {"enable_thinking": True}, {"enable_thinking": False}, {"thinking": True, "reasoning_effort": "high"},
          {"date_string": "01 Jan 2025", "builtin_tools": ["python"], "add_vision_id": True, "keep_past_thinking": True}]
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def public(folders):
    with tempfile.TemporaryDirectory() as scratch:
        for source in sorted({path for folder in folders or download(scratch) for path in folder.rglob("*.jinja")}):
            text = source.read_bytes().decode("utf-8")
            for (name, messages, variables), kwargs, prompt in itertools.product(conversations(), KWARGS, (False, True)):
                where = f"{source.name}: {name}, {kwargs}, {prompt}"
                yield where, case(text, messages, prompt, **SPECIALS, **variables, **kwargs)


def download(scratch):
    """The packages' sources, unpacked. pip would build them next, which is neither needed nor possible here."""
    for package in PACKAGES:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-clean", "--no-build-isolation",
                   "--no-binary", ":all:", "-d", scratch, package]
        subprocess.run(command, env=dict(os.environ, TMPDIR=scratch), stderr=subprocess.DEVNULL, timeout=900)
    folder = pathlib.Path(scratch)
    if sum(1 for _ in folder.rglob("*.jinja")) < 50:
        sys.exit("the packages could not be downloaded: give folders with templates")
    return [folder]


# Every operator, filter, test and method

VARIABLES = {
    "n": None, "t": True, "f": False, "i": 7, "z": 0, "neg": -3, "big": 1234567890123456789, "x": 1.5, "y": -2.0, "sm": 1e-07, "huge": 1e22,
    "s": "héllo Wörld", "e": "", "a": "abc", "w": " \t a b\n", "nl": "a\nb\n", "num": "42", "flt": " -1.5e3 ", "html": "<a href=\"x\">&'</a>",
    "u": "ǅ ß ﬁ İ Σς ½ ² ٣ 日本 😀", "l": [1, 2, 3], "el": [], "ls": ["b", "A", "c"], "mix": [1, "a", None, True, 2.5],
    "d": {"a": 1, "b": [True, None, 1.5]}, "ed": {}, "ld": [{"k": "x", "v": 2}, {"k": "Y", "v": 1}, {"k": "x", "v": 3}],
    "items_key": {"items": 5, "keys": "k", "pop": 1, "_x": 2}, "ll": [[1, 2], [3], []], "dd": {"x": {"y": {"z": 1}}, "1": "one"},
}
VALUES = list(VARIABLES) + [
    "missing", "(1, 2)", "()", "('a',)", "range(4)", "range(0)", "range(5, 0, -2)", "d.items()", "d.keys()", "d.values()", "'<b>'|safe",
    "l|map('string')", "l|reverse", "d.nope", "0.1", "1e16", "-0.0", "{1: 'x', 'y': 2}", "'%s-%d'", "'a,b,,c'", "true", "none", "namespace(a=1)",
    "s.upper", "12345678901234567890",
]
# What Python prints with an address.
ADDRESSED = ["s.upper", "l|map('string')", "l|reverse", "reverse", "items", "attr('items')", "namespace(a=1)"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
TESTS = ["odd", "even", "divisibleby 3", "divisibleby(2)", "defined", "undefined", "none", "boolean", "true", "false", "integer", "float",
         "number", "string", "mapping", "sequence", "iterable", "callable", "sameas none", "sameas(true)", "escaped", "lower", "upper", "filter",
         "test", "in [1, 'a', none]", "in 'abc'", "eq 1", "ne(1)", "lt 2", "gt 1", "le 1", "ge 1", "equalto 'abc'", "not defined", "not none"]
FILTERS = ["abs", "attr('a')", "attr('items')", "batch(2)|list", "batch(2, 'z')|list", "capitalize", "center(9)", "center", "count", "d('x')", "default('x', true)",
           "dictsort", "dictsort(by='value')", "dictsort(true, 'key', true)", "e", "escape", "filesizeformat", "filesizeformat(true)", "first", "float", "float(2.5)",
           "forceescape", "format(1, 2)", "format(a=1)", "groupby('k')", "groupby('k', case_sensitive=true)", "groupby(0)", "indent", "indent(2, true)", "indent('>', blank=true)",
           "int", "int(5)", "int(0, 16)", "items|list", "join", "join(', ')", "join('-', attribute='k')", "last", "length", "list", "lower", "map('upper')|list",
           "map(attribute='k')|list", "map(attribute='k', default='q')|join(',')", "max", "min", "max(attribute='v')", "min(case_sensitive=true)", "pprint",
           "reject('odd')|list", "reject|list", "rejectattr('v')|list", "rejectattr('v', 'eq', 1)|list", "replace('a', 'b')", "replace('', '.')", "replace('l', 'L', 1)",
           "replace(1, 2)", "reverse|list", "reverse", "round", "round(2)", "round(-1)", "round(1, 'ceil')", "round(0, 'floor')", "safe", "select('string')|list", "select|list",
           "selectattr('k')|list", "selectattr('k', 'equalto', 'x')|list", "slice(2)|list", "slice(3, 'f')|list", "sort", "sort(reverse=true)", "sort(attribute='k,v')",
           "sort(case_sensitive=true)", "string", "striptags", "sum", "sum(attribute='v')", "sum(start=1)", "sum(start=[])", "title", "tojson", "tojson(indent=2)",
           "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))", "tojson(sort_keys=true)", "tojson(indent='\t')", "trim", "trim('ab ')", "truncate(5)", "truncate(6, true, '.', 0)",
           "unique|list", "unique(true)|list", "upper", "urlencode", "urlize", "wordcount", "wordwrap(4)", "wordwrap(5, false)", "xmlattr", "xmlattr(false)", "string|length",
           "list|length", "nofilter", "join(1, 2, 3)", "tojson(1, 2, 3, 4, 5)", "trim(5)", "first|default('none')", "map('int')|sum", "map|list", "select('in', [1, 2])|list"]
METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "casefold()", "strip()", "lstrip()", "rstrip()", "strip('ab')", "lstrip(none)", "split()",
           "split(' ')", "split(',', 1)", "split('')", "split(none, 1)", "rsplit(' ', 1)", "rsplit(none, 1)", "rsplit()", "splitlines()", "splitlines(true)", "partition(' ')", "rpartition(' ')",
           "partition('')", "find('l')", "find('l', 3)", "find('zz')", "rfind('l')", "rfind('l', 0, 3)", "index('l')", "index('zz')", "rindex('l')", "count('l')", "count('')", "count(1)", "count('l', 2, -1)",
           "startswith('h')", "startswith(('a', 'h'))", "startswith('l', 2)", "endswith('d')", "endswith(('c', 'd'), 1)", "endswith('')", "replace('l', 'L')", "replace('', '-')", "replace('l', 'L', 1)",
           "join(ls)", "join('xyz')", "join([1])", "join({'a': 1, 'b': 2})", "center(15)", "center(14, '*')", "ljust(15, '.')", "rjust(15)", "zfill(15)", "expandtabs()", "expandtabs(3)",
           "isalpha()", "isdigit()", "isdecimal()", "isnumeric()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()", "isascii()", "isidentifier()", "isprintable()",
           "removeprefix('h')", "removesuffix('d')", "format(1, 2)", "format()", "format(a=1)", "encode()", "get('a')", "get('zz')", "get('zz', 5)", "get()", "items()", "keys()", "values()", "copy()",
           "items()|list", "keys()|list", "pop()", "append(1)", "update({})", "clear()", "sort()", "index(1)", "index(9)", "count(1)", "bit_length()", "is_integer()", "conjugate()", "nope()", "__class__", "real",
           "items", "a", "_x", "start", "k.v", "fromkeys([1])|tojson", "__len__()", "insert(0, 1)", "as_integer_ratio()", "bit_count()", "numerator", "imag"]
SUBSCRIPTS = ["[0]", "[-1]", "[9]", "['a']", "['items']", "[1:]", "[:2]", "[::-1]", "[::2]", "[-2:]", "[:-1]", "[5:1:-2]", "[1:1]", "[::0]", "[none:]", "['x':]", "[true]", "[1.0]", "[missing]",
              "[none]", "[-100:100]", "[100:-100:-1]", "[(1,2)]", "[1, 2]", ".0", ".nope", "['no pe']", "[[]]"]
UNARY = ["-", "+", "not ", "- -", "not not "]
FORMATS = ["{}", "{0}", "{:>8}", "{:<8}|", "{:^8}|", "{:*^9}", "{:08.3f}", "{:.2f}", "{:e}", "{:.3g}", "{:g}", "{:,}", "{:_}", "{:+d}", "{: d}", "{:x}", "{:#x}", "{:X}", "{:b}", "{:#o}", "{:c}", "{:%}", "{:.1%}",
           "{!r}", "{!s:>9}", "{:.2}", "{:5}", "{:s}", "{:d}", "{:010,}", "{{}}", "{", "}", "{:n}", "{:>{}}", "{0[0]}", "{0.real}", "{a}", "{0}{}", "{:=+8}", "{:#.0f}", "{:.0f}", "{!x}", "{:zz}"]
PERCENTS = ["%s", "%r", "%d", "%i", "%5d|", "%-5d|", "%05d", "%+d", "% d", "%x", "%#x", "%X", "%o", "%e", "%.2e", "%f", "%.3f", "%g", "%.3g", "%G", "%c", "%%", "%5s|", "%-5s|", "%.2s", "%s %s", "%(a)s", "%", "%z", "%.3d", "%*d"]
STATEMENTS = [
    "{% for v in VALUE %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ v }},{% else %}none{% endfor %}",
    "{% for v in VALUE %}{{ loop.previtem }}<{{ v }}>{{ loop.nextitem }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.cycle('a', 'b') }}{{ loop.changed(v) }};{% endfor %}",
    "{% for k, v in VALUE %}{{ k }}={{ v }};{% endfor %}",
    "{% for v in VALUE if v %}{{ v }}{{ loop.index }}/{{ loop.length }}{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}",
    "{% for v in VALUE %}{% if loop.index0 is odd %}{% continue %}{% endif %}{{ v }}{% else %}E{% endfor %}",
    "{% set q = VALUE %}{{ q }}{% set q, r = VALUE %}{{ r }}",
    "{% set ns = namespace(v=VALUE) %}{% for k in [1, 2] %}{% set ns.v = [ns.v, k] %}{% endfor %}{{ ns.v }}",
    "{% macro m(p, q=VALUE) %}[{{ p }}|{{ q }}|{{ varargs }}|{{ kwargs }}]{% endmacro %}{{ m(VALUE) }}{{ m(1, 2, 3, z=VALUE) }}{{ m(q=1) }}",
    "{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) m(VALUE) %}{{ y }}{{ y is string }}{% endcall %}",
    "{% if VALUE %}yes{% elif VALUE is none %}none{% else %}no{% endif %}{{ 'a' if VALUE }}{{ VALUE if true else 1 }}",
    "{% filter upper %}{{ VALUE }}{% endfilter %}{% set b | replace('a', 'Z') %}{{ VALUE }}{% endset %}{{ b }}",
    "{% with p = VALUE, q = 2 %}{{ p }}{{ q }}{% endwith %}{{ p }}",
    "{% for v in VALUE recursive %}{{ loop.depth }}{% if v is iterable and v is not string %}({{ loop(v) }}){% else %}{{ v }}{% endif %}{% endfor %}",
    "{{ dict(VALUE) }}{{ dict(VALUE, b=1) }}", "{{ namespace(VALUE).a }}", "{% set ns = namespace() %}{% set ns.a = VALUE %}{{ ns.a }}{{ ns }}", "{{ range(VALUE) }}{{ range(VALUE)|list }}",
    "{{ [VALUE, (VALUE,), {'k': VALUE}] }}", "{{ {VALUE: 1} }}", "{{ [*VALUE] }}", "{{ raise_exception(VALUE) }}", "{% autoescape true %}{{ VALUE }}{{ [VALUE]|join('<') }}{{ html ~ VALUE ~ a }}{% endautoescape %}",
    "{% set g = VALUE %}{{ g|list }}{{ g|list }}{{ g|first }}", "{% generation %}{{ VALUE }}{% endgeneration %}", "{{ (VALUE)() }}", "{{ joiner(VALUE)() }}{% set c = cycler(VALUE, 2) %}{{ c.next() }}{{ c.current }}",
    "{% for x in l %}{% for v in VALUE %}{{ loop.index }}{{ x }}{% endfor %}{% endfor %}", "{% block b %}{{ VALUE }}{% endblock %}{{ self.b() }}", "{% print VALUE, 1 %}", "{{ strftime_now(VALUE) }}",
]
SYNTAX = [
    "a\r\nb\rc\n", "{% raw %}\n{{ x }}\n{% endraw %}\nz", "{%- raw -%}  {{ x }}  {%- endraw -%}  z", "  {% if true %}\n  x\n  {% endif %}\n  y\n\n", "a {#- c -#} b {# c #}\n d", "{# open", "{% raw %}open", "  {%+ if true %}x{% endif +%}\ny",
    "{{ 'a' 'b' \"c\" }}", "{{ 'a\\n\\t\\x41\\u00e9\\'\\q\\101' }}", "{{ 'é\\é' }}", "{{ '\\ud800' }}", "{{ '\\x4' }}", "{{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5E-3 }} {{ 1_0.5_0 }}", "{{ 007 }}", "{{ 1__0 }}", "{{ .5 }}", "{{ 5. }}",
    "{{ 1.e5 }}", "{{ l.0 }}{{ l.1.real }}", "{{ {'a': {}}['a'] }}", "{{ {'a':1}}}", "{{ }}", "{% %}", "{{ 1 2 }}", "{{ a b }}", "{{ (1) }}{{ (1,) }}{{ 1, 2 }}", "{{ -1|abs }}{{ -x|abs }}{{ 2**-1 }}{{ -2**2 }}{{ 2**3**2 }}", "{{ not a in ['abc'] }}{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 1 == 1.0 == true }}",
    "{{ 1 if false }}|{{ (1 if false) is defined }}", "{{ a if t else b if f else c }}", "{{ 1 is odd is even }}", "{{ not 1 is odd }}", "{{ 2 * 3 ~ 4 + 5 }}", "{{ 'a' ~ 'b' * 2 }}", "{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % -3 }}{{ -7 % 3 }}{{ 7.5 // 2 }}{{ -7.5 % 2 }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% for i in [1] %}{% set x = 3 %}{{ x }}{% endfor %}{{ x }}", "{% for i in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop }}", "{% for i in l %}{{ i }}{% else %}{% endfor %}{{ i }}",
    "{% macro f() %}{{ i }}{{ q }}{% endmacro %}{% set q = 5 %}{{ f() }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f() }}{{ f(b=2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}", "{% macro f() %}{{ caller() }}{% endmacro %}{{ f() }}", "{% macro f() %}x{% endmacro %}{% call f() %}y{% endcall %}", "{{ f is defined }}{% macro f() %}x{% endmacro %}{{ f.name }}{{ f.arguments }}",
    "{% macro f(a, a) %}{% endmacro %}", "{% macro f(a=1, b) %}{% endmacro %}", "{% for loop in l %}{% endfor %}", "{% for i in l %}{% set loop = 1 %}{% endfor %}", "{% break %}", "{% for i in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% include 'x' %}", "{% if false %}{% include 'x' %}{% endif %}ok", "{% extends 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% include 'x' ignore missing %}", "{% block a %}1{% endblock %}{% block a %}{% endblock %}",
    "{% if true %}{{ 1|nofilter }}{% endif %}", "{% if false %}{{ 1|nofilter }}{% endif %}ok", "{{ 1|nofilter if false else 2 }}", "{{ 1|nofilter }}", "{% if false %}{% for i in l %}{{ 1|nofilter }}{% endfor %}{% endif %}", "{{ 1 is notest }}",
    "{% set ns.a = 1 %}", "{% set d.a = 1 %}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set (a, b) = [3, 4] %}{{ a }}{{ b }}", "{% set a = %}", "{% set a %}x{% endset %}{{ a }}", "{% set 1 = 2 %}", "{% set true = 2 %}",
    "{% with %}{% set v = 1 %}{{ v }}{% endwith %}{{ v }}", "{% endif %}", "{% if %}{% endif %}", "{% if true %}", "{% unknown %}", "{{ 'a }}", "{{ ( }}", "{{ ) }}", "{{ [1, 2 }}", "{{ {1} }}", "{{ [1,,2] }}", "{{ [1,] }}{{ {'a': 1,} }}", "{{ f(a=1, 2) }}", "{{ f(*l, 1) }}",
    "{{ dict(**{'a': 1}) }}{{ range(*[1, 4])|list }}", "{{ dict(a=1, **{'a': 2}) }}", "{{ a ! b }}", "{{ a & b }}", "{{ a ? b }}", "{{ a; b }}", "{{ lambda }}", "{{ if }}{{ for }}{{ in }}", "{{ None }}{{ True }}{{ False }}{{ none }}", "{{ ÄÖ }}{{ a1_b }}", "{{ 1a }}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for i in range(3) if i != 1 recursive %}{{ i }}{% endfor %}", "{%- for i in l -%} {{ i }} {%- endfor -%} x", "{{- 1 -}}  x", "x  {{- 1 }}  y", "{{ 1 -}}\n\n y", "{{+ 1 }}", "{{ 1 +}}",
    "{% for i in [1,2,3] -%}\n  {{ i }}\n{%- endfor %}\n", "\n{% set x = 1 %}\n\n{{ x }}\n\n", "{% if x %}\n\n{% endif %}\n\n", "\t{% if true %}\t\n{% endif %}", " {# c #} \n{# d #}\nx", "{{ '%}' }}{% if '%}' %}x{% endif %}", "{{ '{{' }}{{ '#}' }}", "{{ {'}}': 1}['}}'] }}",
    "{% set x %}{% for i in l %}{{ i }}{% endfor %}{% endset %}{{ x|length }}", "{% for i in l %}{% set y %}{% break %}{% endset %}{% endfor %}{{ y }}", "{% call(a, b=2) m() %}{{ a }}{% endcall %}", "{% filter upper|replace('A', 'b') %}abc{% endfilter %}", "{{ caller }}", "{{ varargs }}",
    "{% for i in missing %}x{% else %}e{% endfor %}", "{% for i in none %}{% endfor %}", "{{ missing.a }}", "{{ missing['a'] }}", "{{ missing.a.b }}", "{{ d.x.y }}", "{{ d.x is defined }}", "{{ missing() }}", "{{ missing + 1 }}", "{{ missing == none }}{{ missing == missing2 }}", "{{ missing|length }}{{ missing|list }}",
    "{{ d.items() }}{{ items_key.items }}{{ items_key['items'] }}{{ items_key.pop is defined }}{{ items_key.keys() }}", "{{ ().__class__ }}{{ ''.__class__.__mro__ }}", "{{ [].append(1) }}", "{{ d.update({}) }}", "{{ ''.format.__globals__ }}", "{{ '{0.__class__}'.format(1) }}", "{{ '{a.b}'.format(a=dd) }}",
    "{{ '{x[y]}'.format(x=dd.x) }}", "{{ '%s'|format(missing) }}", "{{ 'x'|attr('upper')() }}", "{{ lipsum is defined }}", "{{ range(200000) }}", "{{ range(1, 2, 3, 4) }}", "{{ range(3)[1] }}{{ range(9)[2:5] }}{{ range(3).start }}", "{{ 3 in range(5) }}{{ 2.0 in range(5) }}", "{{ range(3) == range(3) }}", "{{ x is sameas x }}{{ l is sameas l }}{{ l is sameas [1] }}{{ big is sameas big }}",
    "{% set j = joiner('|') %}{{ j() }}a{{ j() }}b", "{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}", "{{ namespace(_a=1) }}", "{% set ns = namespace(a=1) %}{% set ns._b = 1 %}", "{% set ns = namespace(a=1) %}{{ ns.b is defined }}{{ ns['a'] }}{{ ns.a }}",
    "{{ ('<'|safe) + '<' }}{{ '<' + ('>'|safe) }}{{ ('<%s>'|safe) % '<' }}{{ ('<'|safe) ~ '<' }}{{ ('<'|e)|e }}{{ '<'|e|length }}{{ ('a'|safe)|upper is escaped }}", "{{ ('a<b'|safe).replace('a', '<') }}{{ ('{}'|safe).format('<') }}", "{{ ['<'|safe, '<'] }}",
    "{{ s.encode() }}{{ s.encode('utf-8').decode() }}{{ 'a'.encode() + 'b'.encode() }}{{ s.encode()|length }}{{ s.encode()[1] }}{{ s.encode()[1:3] }}{{ 'a'.encode() < 'b'.encode() }}{{ 97 in a.encode() }}{{ s.encode('ascii') }}",
    "{% autoescape false %}{{ html }}{% endautoescape %}", "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ 1.0 / 0 }}", "{{ 0 ** -1 }}", "{{ 'a' * -1 }}{{ [1] * 2 }}{{ 2 * (1,) }}", "{{ 10 / 2 }}{{ 7 / 2 }}{{ 2 ** 0.5 }}{{ 1e308 * 10 }}", "{{ 'b' > 'a' }}{{ [1, 2] < [1, 3] }}{{ (1,) < (1, 2) }}", "{{ {} < {} }}",
    "{{ l[1:] + l[:1] }}{{ 'abc'[::-1] }}{{ s[-3:] }}{{ s[1] }}", "{{ '\\N{BULLET}' }}", "{{ [[1, 2], [3, 4]]|map('first')|list }}{{ ld|map(attribute='k')|unique|join }}", "{{ ld|selectattr('v', 'gt', 1)|map(attribute='k')|list }}", "{{ ld|groupby('k')|map('first')|list }}{% for g in ld|groupby('k') %}{{ g.grouper }}{{ g.list }}{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}", "{{ d|items|list }}{% for k, v in d|items %}{{ k }}{% endfor %}", "{% for i in l|batch(2) %}{{ i }}{% endfor %}", "{{ l|batch(2) is iterable }}{{ l|batch(2) is sequence }}{{ (l|batch(2))|length }}", "{{ loop is defined }}{{ self is defined }}{{ super is defined }}",
]


def cross():
    def one(template):
        return template, case(template, **VARIABLES)

    templates = ["{{ %s }}" % value for value in VALUES]
    templates += ["{{ (%s) %s (%s) }}" % (one, op, two) for op in BINARY for one in VALUES for two in VALUES if not is_no_case(one, op, two)]
    templates += ["{{ (%s) is %s }}" % pair for pair in itertools.product(VALUES, TESTS)]
    on_text = ("replace", "title", "upper", "lower", "wordcount", "string", "urlencode", "trim", "center", "e", "f")
    templates += ["{{ (%s)|%s }}" % pair for pair in itertools.product(VALUES, FILTERS)
                  if not (pair[0] in ADDRESSED and pair[1].startswith(on_text))]
    templates += ["{{ (%s).%s }}" % pair for pair in itertools.product(VALUES, METHODS)]
    # jinja2 computes constants when it compiles, where what has no slices gives nothing and not an error.
    templates += ["{{ (%s)%s }}" % pair for pair in itertools.product(VALUES, SUBSCRIPTS)
                  if ":" not in pair[1] or pair[0] in VARIABLES]
    templates += ["{{ %s(%s) }}" % pair for pair in itertools.product(UNARY, VALUES)]
    templates += ["{{ '%s'.format(%s) }}" % pair for pair in itertools.product(FORMATS, VALUES)]
    templates += ["{{ '%s' %% (%s) }}" % pair for pair in itertools.product(PERCENTS, VALUES)]
    templates += ["{{ '%s'|format(%s) }}" % pair for pair in itertools.product(PERCENTS, VALUES)]
    templates += [statement.replace("VALUE", value) for statement in STATEMENTS for value in VALUES
                  if not (value in ADDRESSED and "filter" in statement)]
    templates += SYNTAX
    return map(one, templates)


def is_no_case(one, op, two):
    """Nothing certain, or integers of more than 128 bits, or texts of gigabytes."""
    large = ("big", "12345678901234567890", "huge", "1e16")
    if op in ("**", "*") and (one in large or two in large):
        return True
    # The order of a set is Python's own.
    return op == "-" and "d." in one + two and "()" in one + two


# Random templates

class Random:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def value(self, depth):
        r = self.random.random()
        if depth <= 0 or r < 0.3:
            return self.pick(*(value for value in VALUES if value not in ADDRESSED), "0", "1", "2", "-1", "'x'", "' a b '", "[]", "[3, 1, 2]", "{'k': 'v'}", "'a-b_c'")
        if r < 0.45:
            one, op, two = self.value(depth - 1), self.pick(*(op for op in BINARY if op not in ("**", "*", "-"))), self.value(depth - 1)
            return f"({one}) {op} ({two})"
        if r < 0.65:
            return f"({self.value(depth - 1)})|{self.filter(depth)}"
        if r < 0.75:
            return f"({self.value(depth - 1)}).{self.pick(*(method for method in METHODS if method not in ADDRESSED))}"
        if r < 0.8:
            # jinja2 computes constants when it compiles, where what has no slices gives nothing and not an error.
            return f"({self.pick(*VARIABLES)}){self.pick(*SUBSCRIPTS)}"
        if r < 0.85:
            return f"({self.value(depth - 1)}) is {self.pick(*TESTS)}"
        if r < 0.9:
            return f"({self.value(depth - 1)}) if ({self.value(depth - 1)}) else ({self.value(depth - 1)})"
        if r < 0.95:
            return f"[{self.value(depth - 1)}, {self.value(depth - 1)}]"
        key = self.pick("1", "'k'", "none", "a", "(1, 2)", "missing", "x")
        return f"{{{key}: {self.value(depth - 1)}}}"

    def filter(self, depth):
        if self.random.random() < 0.7:
            return self.pick(*(filter for filter in FILTERS if filter not in ADDRESSED))
        name = self.pick("default", "join", "replace", "indent", "trim", "truncate", "round", "int", "center", "sort", "format", "tojson", "sum")
        arguments = [self.value(0) for _ in range(self.random.randrange(3))]
        return f"{name}({', '.join(arguments)})"

    def text(self):
        return "".join(self.pick("a", " ", "\n", "\t", "x", "  ", "\n\n", "\r\n", "é", "{", "%", "#", "}") for _ in range(self.random.randrange(5)))

    def sign(self):
        return self.pick("", "", "", "-", "+")

    def tag(self, inner):
        return "{%" + self.sign() + " " + inner + " " + self.sign() + "%}"

    def body(self, depth):
        return "".join(self.statement(depth) for _ in range(self.random.randrange(1, 4)))

    def statement(self, depth):
        r = self.random.random()
        if depth <= 0 or r < 0.25:
            return self.text()
        if r < 0.5:
            return "{{" + self.pick("", "-") + " " + self.value(2) + " " + self.pick("", "-") + "}}"
        name = self.pick("v", "w", "q", "a", "i")
        if r < 0.6:
            middle = self.tag("else") + self.body(depth - 1) if self.pick(True, False) else ""
            return self.tag(f"if {self.value(1)}") + self.body(depth - 1) + middle + self.tag("endif")
        if r < 0.72:
            condition = f" if {self.value(1)}" if self.random.random() < 0.3 else ""
            middle = self.tag("else") + self.body(depth - 1) if self.random.random() < 0.3 else ""
            inner = self.body(depth - 1) + self.pick("", "{{ loop.index }}", "{{ loop.last }}", "{{ " + name + " }}", self.tag("break"), self.tag("continue"), "{{ loop.length }}", "{{ loop.nextitem }}")
            return self.tag(f"for {name} in {self.value(1)}{condition}") + inner + middle + self.tag("endfor")
        if r < 0.82:
            return self.tag(f"set {name} = {self.value(2)}")
        if r < 0.87:
            return self.tag(f"set {name}") + self.body(depth - 1) + self.tag("endset")
        if r < 0.91:
            return self.tag(f"macro m({name}, p={self.value(0)})") + self.body(depth - 1) + self.tag("endmacro") + "{{ m(" + self.value(1) + ") }}"
        if r < 0.94:
            return self.tag(f"with {name} = {self.value(1)}") + self.body(depth - 1) + self.tag("endwith")
        if r < 0.97:
            return "{#" + self.sign() + " c " + self.sign() + "#}"
        return "{%" + self.sign() + " raw " + self.pick("", "-") + "%}" + self.text() + self.tag("endraw")


def randoms(count, seed):
    generator = Random(seed)
    for at in range(count):
        template = "{{ " + generator.value(3) + " }}" if at % 2 else generator.body(3)
        yield template, case(template, **VARIABLES)


if __name__ == "__main__":
    main()
