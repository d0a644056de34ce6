"""Golden data for chat templates, made by Python's jinja2 as transformers sets it up.

    python make_templates.py FOLDER_WITH_TEMPLATES [MODEL.gguf]

Writes templates/snippets.json (templates, inputs and results, all of our own) and
templates/renderings.json (our conversations; for each template file of the folder and for the
template of the model, hashes only: the template texts belong to others).
"""

import datetime
import hashlib
import json
import os
import pathlib
import sys
import time

os.environ["TZ"] = "UTC"
time.tzset()

import transformers.utils.chat_template_utils as utils  # noqa: E402

from template_snippets import SNIPPETS, V  # noqa: E402

HERE = pathlib.Path(__file__).parent / "templates"
NOW = 1718452800  # 2024-06-15 12:00:00 UTC
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW)


utils.datetime = FixedTime

SYSTEM = {"role": "system", "content": "You count sheep. Be brief."}
HELLO = {"role": "user", "content": "How many sheep are in the field?"}
SEVEN = {"role": "assistant", "content": "Seven, and one dog."}
MORE = {"role": "user", "content": "  And behind the hill?\n"}
NONE = {"role": "assistant", "content": "None that I can see.\n"}

COUNT = {
    "type": "function",
    "function": {
        "name": "count_animals",
        "description": "Counts the animals in a place.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Name of the place"},
                "kind": {"type": "string", "enum": ["sheep", "goat"], "description": "Which kind"},
                "radius": {"type": "number", "description": "In metres", "nullable": True},
                "tags": {"type": "array", "items": {"type": "string"}, "description": "Filters"},
            },
            "required": ["place"],
        },
    },
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says how the weather is, \"today\" or later.",
        "parameters": {
            "type": "object",
            "properties": {
                "day": {"type": "integer", "description": "Days from now", "default": 0},
                "where": {
                    "type": "object",
                    "description": "Co-ordinates",
                    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                    "required": ["x", "y"],
                },
                "unit": {"type": ["string", "null"], "description": "C or F"},
            },
            "required": [],
        },
    },
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {
                "name": "count_animals",
                "arguments": {"place": "Grüne Wiese", "radius": 12.5, "tags": ["a", "b"]},
            },
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "count_animals", "content": "{\"count\": 7}"}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def case(name, messages, **more):
    return {"name": name, "messages": messages, **more}


CASES = [
    case("one turn", [HELLO]),
    case("one turn, prompt", [HELLO], add_generation_prompt=True),
    case("system", [SYSTEM, HELLO], add_generation_prompt=True),
    case("two turns", [HELLO, SEVEN, MORE, NONE]),
    case("two turns, system, prompt", [SYSTEM, HELLO, SEVEN, MORE], add_generation_prompt=True),
    case("empty content", [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]),
    case("blank content", [{"role": "system", "content": " \n"}, {"role": "user", "content": "\t"}], add_generation_prompt=True),
    case("unicode", [{"role": "system", "content": "Ein „Schäfer“ zählt 羊 🐑\u200d🐕."}, {"role": "user", "content": "Ça va? «Ω»\u00a0\u2028 e\u0301"}, {"role": "assistant", "content": "Да — 七 🐑"}]),
    case("reasoning", [HELLO, {**SEVEN, "reasoning_content": "I look.\nI count: 1, 2, ... 7."}]),
    case("reasoning by another name", [HELLO, {**SEVEN, "thinking": "Seven heads."}, MORE, {**NONE, "reasoning": "Nothing there."}]),
    case("think tags", [HELLO, {"role": "assistant", "content": "<think>\nseven?\n</think>\n\nSeven."}, MORE], add_generation_prompt=True),
    case("thinking off", [SYSTEM, HELLO], add_generation_prompt=True, extra={"enable_thinking": False}),
    case("thinking on", [SYSTEM, HELLO], add_generation_prompt=True, extra={"enable_thinking": True, "thinking": True}),
    case("tools", [HELLO], tools=[COUNT, WEATHER], add_generation_prompt=True),
    case("tools, system", [SYSTEM, HELLO], tools=[COUNT], add_generation_prompt=True),
    case("tool call", [SYSTEM, HELLO, CALL, RESULT], tools=[COUNT, WEATHER], add_generation_prompt=True),
    case("tool call, answer", [HELLO, CALL, RESULT, SEVEN], tools=[COUNT]),
    case("tool call as text", [HELLO, {"role": "assistant", "content": None, "tool_calls": [call("weather", "{\"day\": 1}", id="call00002")]}], tools=[WEATHER]),
    case("two tool calls", [HELLO, {"role": "assistant", "content": "Let me see.", "reasoning_content": "Both.", "tool_calls": [call("weather", {"day": 0, "where": {"x": 1, "y": -2.0}, "unit": None}, id="a12345678"), call("count_animals", {"place": "x < y & \"z\"", "deep": True}, id="b12345678")]}, {**RESULT, "tool_call_id": "a12345678", "name": "weather", "content": "rain"}, {**RESULT, "tool_call_id": "b12345678", "content": "3"}, {"role": "assistant", "content": "Three, in the rain."}, MORE], tools=[COUNT, WEATHER], add_generation_prompt=True),
    case("parts", [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "image"}, {"type": "text", "text": "this?"}]}, {"role": "assistant", "content": [{"type": "text", "text": "A sheep."}]}], add_generation_prompt=True),
    case("parts, text only", [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}], add_generation_prompt=True),
    case("wrong order", [SEVEN, HELLO, HELLO]),
    case("developer", [{"role": "developer", "content": "Count only."}, HELLO], add_generation_prompt=True),
    case("numbers in messages", [{"role": "user", "content": "x", "n": 1, "f": 1e22, "b": False}, {"role": "assistant", "content": "3.0"}]),
    case("documents", [HELLO], documents=[{"title": "Field", "text": "Seven sheep."}], add_generation_prompt=True),
    case("date given", [HELLO], extra={"date_string": "01 Jan 2030", "current_date": "2030-01-01", "reasoning_effort": "low"}, add_generation_prompt=True),
    case("continue", [HELLO, {"role": "assistant", "content": "There are"}], continue_final_message=True),
    case("continue, blank end", [SYSTEM, HELLO, {"role": "assistant", "content": "There are "}], continue_final_message=True),
]


def render(template, case, spans):
    messages = [{k: v for k, v in m.items() if v is not None} for m in case["messages"]]
    texts, indices = utils.render_jinja_template(
        conversations=[messages],
        tools=case.get("tools"),
        documents=case.get("documents"),
        chat_template=template,
        return_assistant_tokens_mask=spans,
        continue_final_message=case.get("continue_final_message", False),
        add_generation_prompt=case.get("add_generation_prompt", False),
        **{**TOKENS, **case.get("extra", {})},
    )
    if not spans:
        return texts[0], None
    size = lambda n: len(texts[0][:n].encode())  # noqa: E731
    return texts[0], [[size(a), size(b)] for a, b in indices[0]]


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def renderings(template):
    tracks = "endgeneration" in template
    results, spans = [], []
    for one in CASES:
        track = tracks and not one.get("continue_final_message", False)
        try:
            text, ranges = render(template, one, track)
            results.append(digest(text))
            spans.append(digest(json.dumps(ranges)) if track else "")
        except Exception as error:
            results.append("error")
            spans.append("")
            if os.environ.get("SHOW_ERRORS"):
                print("   ", one["name"], type(error).__name__, str(error)[:150])
    out = {"sha256": hashlib.sha256(template.encode()).hexdigest(), "results": results}
    return {**out, "spans": spans} if tracks else out


def gguf_template(path):
    import gguf

    field = gguf.GGUFReader(path).fields["tokenizer.chat_template"]
    return bytes(field.parts[field.data[0]]).decode()


def snippet_results():
    out = []
    for name, template, variables in SNIPPETS:
        entry = {"name": name, "template": template}
        if variables:
            entry["uses_variables"] = True
        try:
            entry["result"] = utils._compile_jinja_template(template).render(**variables)
            json.dumps(entry["result"], ensure_ascii=False).encode()
        except Exception as error:
            entry.pop("result", None)
            # The words of other errors are Python's own and differ between its versions.
            entry["error"] = str(error) if type(error).__name__ in ("UndefinedError", "TemplateError") else ""
        assert " at 0x" not in entry.get("result", ""), name
        out.append(entry)
    return out


def main():
    folder = pathlib.Path(sys.argv[1])
    templates = {}
    for path in sorted(folder.glob("*.jinja")):
        templates[path.name] = renderings(path.read_bytes().decode())
    if len(sys.argv) > 2:
        templates["gguf"] = renderings(gguf_template(sys.argv[2]))
    data = {"unix_time": NOW, "special_tokens": TOKENS, "cases": CASES, "templates": templates}
    HERE.mkdir(exist_ok=True)
    with open(HERE / "renderings.json", "w", encoding="utf-8") as out:
        json.dump(data, out, ensure_ascii=False, indent=0)
    with open(HERE / "snippets.json", "w", encoding="utf-8") as out:
        data = {"unix_time": NOW, "variables": V, "snippets": snippet_results()}
        json.dump(data, out, ensure_ascii=False, indent=0)
    errors = sum(r == "error" for t in templates.values() for r in t["results"])
    print(f"{len(templates)} templates, {len(CASES)} conversations, {errors} errors, {len(SNIPPETS)} snippets")


main()
