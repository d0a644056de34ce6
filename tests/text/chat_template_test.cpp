#include "temper/text/chat_template.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "sha256.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

const Json kHello = Json::parse(R"([{"role": "user", "content": "hi"}])");

std::string render(const std::string& source, const ChatTemplateOptions& options = {}) {
  return ChatTemplate(source).render(kHello, options);
}

std::string error_of(const std::string& source, const Json& messages = kHello,
                     const ChatTemplateOptions& options = {}) {
  try {
    const std::string text = ChatTemplate(source).render(messages, options);
    return "no error, but: " + text.substr(0, 100);
  } catch (const Error& error) {
    return error.what();
  }
}

void expect_error(const std::string& source, const std::string& part) {
  const std::string message = error_of(source);
  EXPECT_NE(message.find(part), std::string::npos) << source.substr(0, 100) << "\n  " << message;
}

std::string repeat(std::string_view text, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

TEST(Sha256, KnownDigest) {  // FIPS 180-4, example "abc"
  EXPECT_EQ(test::sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ChatTemplate, PassesOptionsAsVariables) {
  const Json tools = Json::parse(R"([{"function": {"name": "f"}}])");
  const Json documents = Json::parse(R"([{"title": "T"}])");
  const Json extra = Json::parse(R"({"flag": true, "eos_token": "<end>"})");
  ChatTemplateOptions options;
  options.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  options.tools = &tools;
  options.documents = &documents;
  options.extra = &extra;
  EXPECT_EQ(render("{{ bos_token }}{{ eos_token }} {{ tools[0].function.name }} "
                   "{{ documents[0].title }} {{ flag }} {{ add_generation_prompt }}",
                   options),
            "<s><end> f T True True");
  EXPECT_EQ(render("{{ tools }} {{ documents }} {{ tools is defined }} {{ pad_token is defined }}"),
            "None None True False");
  options.add_generation_prompt = false;
  EXPECT_EQ(render("{{ add_generation_prompt }}", options), "False");
}

TEST(ChatTemplate, PreparesMessagesAsTransformersDoes) {
  const Json messages = Json::parse(
      R"([{"role": "assistant", "content": null, "tool_calls": null, "reasoning": "r"}])");
  const ChatTemplate chat("{{ messages[0] | tojson }}");
  EXPECT_EQ(
      chat.render(messages),
      R"({"thinking": "r", "role": "assistant", "reasoning": "r", "reasoning_content": "r"})");
}

TEST(ChatTemplate, RefusesWrongMessages) {
  EXPECT_EQ(error_of("x", Json::object()),
            "[chat_template] messages must be an array of objects, got object");
  EXPECT_EQ(error_of("x", Json::array()), "[chat_template] no messages: expected at least one");
  EXPECT_EQ(error_of("x", Json::array({"hi"})),
            "[chat_template] message 0 must be an object with role and content, got string");
  const Json large = Json::parse(R"([{"role": "user", "n": 18446744073709551615}])");
  EXPECT_NE(error_of("x", large).find("needs more than 63 bits"), std::string::npos);
  std::string deep = "1";
  for (int i = 0; i < 100; ++i) deep = "[" + deep + "]";
  const Json nested = Json::array({{{"role", "user"}, {"content", Json::parse(deep)}}});
  EXPECT_NE(error_of("x", nested).find("nested deeper than 64"), std::string::npos);
  Json binary = kHello;
  binary[0]["content"] = Json::binary({1, 2});
  EXPECT_NE(error_of("x", binary).find("binary data"), std::string::npos);
}

TEST(ChatTemplate, ErrorsSayTheLine) {
  EXPECT_EQ(error_of("a\n{{ messages[0].nope.x }}"),
            "[chat_template] line 2: 'dict object' has no attribute 'nope'");
  EXPECT_EQ(error_of("\n\n{% if true %}\n{{ raise_exception('Stop: ' ~ 1) }}{% endif %}"),
            "[chat_template] line 4: the template says: Stop: 1");
  EXPECT_EQ(error_of("a\n{% for x in y %}\n{{ x }}"),
            "[chat_template] line 3: unexpected end of template, expected {% endfor or else %} "
            "(inside {% for %})");
  EXPECT_EQ(error_of("{{ a b }}"), "[chat_template] line 1: expected '}}', got 'b'");
  EXPECT_EQ(error_of("{{ a|nope }}"), "[chat_template] line 1: no filter named 'nope'");
  EXPECT_EQ(error_of("{% macro m(x) %}\n{{ x + 1 }}{% endmacro %}\n\n{{ m('a') }}"),
            "[chat_template] line 2: unsupported operand types for +: 'str' and 'int'");
}

TEST(ChatTemplate, UnsupportedFeaturesAreNamed) {
  for (const char* tag : {"include 'x'", "extends 'x'", "import 'x' as y", "block b"}) {
    expect_error(std::string("{% ") + tag + " %}", "not supported: a chat template stands alone");
  }
  expect_error("{% autoescape true %}{% endautoescape %}", "only false is supported");
  expect_error("{{ 'a'.encode() }}", "string method 'encode' is not supported");
  expect_error("{{ joiner() }}", "function 'joiner' is not supported");
  expect_error("{{ 9223372036854775807 + 1 }}", "more than 64 bits");
  expect_error("{{ 2 ** 63 }}", "more than 64 bits");
  expect_error("{{ 99999999999999999999 }}", "more than 64 bits");
  EXPECT_EQ(render("{{ -9223372036854775807 - 1 }}"), "-9223372036854775808");
  expect_error("{{ (-9223372036854775807 - 1) // -1 }}", "more than 64 bits");
  expect_error("{{ -(-9223372036854775807 - 1) }}", "more than 64 bits");
  EXPECT_EQ(render("{{ (-9223372036854775807 - 1) % -1 }}"), "0");
}

TEST(ChatTemplate, GenerationSpansAreByteRanges) {
  const Json messages = Json::parse(
      R"([{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "Ça va"}])");
  const ChatTemplate chat(
      "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}"
      "{{ m.content }}.{% endgeneration %}{% else %}{{ m.content }}{% endif %}|{% endfor %}");
  EXPECT_TRUE(chat.has_generation_blocks());
  const auto rendered = chat.render_with_spans(messages);
  EXPECT_EQ(rendered.text, "user: Grüße|assistant: Ça va.|");
  ASSERT_EQ(rendered.generation.size(), 1u);
  const auto [start, end] = rendered.generation[0];
  EXPECT_EQ(rendered.text.substr(start, end - start), "Ça va.");
  EXPECT_FALSE(ChatTemplate("x").has_generation_blocks());
  EXPECT_TRUE(ChatTemplate("x").render_with_spans(kHello).generation.empty());
}

TEST(ChatTemplate, GenerationOfUnknownPlaceIsAnErrorForSpansOnly) {
  const std::string source =
      "{% macro m() %}{% generation %}x{% endgeneration %}{% endmacro %}a{{ m() }}";
  EXPECT_EQ(render(source), "ax");
  EXPECT_THROW((void)ChatTemplate(source).render_with_spans(kHello), Error);
}

TEST(ChatTemplate, ContinuesTheFinalMessage) {
  const ChatTemplate chat(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}");
  Json messages = kHello;
  messages.push_back({{"role", "assistant"}, {"content", "I am "}});
  ChatTemplateOptions options;
  options.continue_final_message = true;
  EXPECT_EQ(chat.render(messages, options), "<user>hi</user><assistant>I am ");
  const ChatTemplate trims("{% for m in messages %}<{{ m.content | trim }}>{% endfor %}");
  EXPECT_EQ(trims.render(messages, options), "<hi><I am");
  messages[1]["content"] = Json::parse(R"([{"type": "text", "text": "two"}, {"type": "image"}])");
  const ChatTemplate parts("{{ messages[1].content[0].text }}!");
  EXPECT_EQ(parts.render(messages, options), "two");
  const ChatTemplate drops("{{ messages[0].content }}");
  EXPECT_THROW((void)drops.render(messages, options), Error);
  messages[1].erase("content");
  EXPECT_THROW((void)chat.render(messages, options), Error);
}

TEST(ChatTemplate, InvalidUtf8PassesThrough) {
  Json messages = kHello;
  messages[0]["content"] = "a\xff\xc3z\xe7\xbe";
  const ChatTemplate chat("{{ messages[0].content[::-1] }}|{{ messages[0].content | length }}");
  EXPECT_EQ(chat.render(messages),
            "\xbe\xe7z\xc3\xff"
            "a|6");
  const ChatTemplate upper("{{ messages[0].content | upper | trim }}");
  EXPECT_EQ(upper.render(messages), "A\xff\xc3Z\xe7\xbe");
}

TEST(ChatTemplateLimits, NestingOfTheSource) {
  EXPECT_EQ(render(repeat("{% if true %}", 60) + "x" + repeat("{% endif %}", 60)), "x");
  expect_error(repeat("{% if true %}", 100'000), "nested deeper than 64 levels");
  expect_error("{{ " + repeat("(", 100'000) + "1" + repeat(")", 100'000) + " }}",
               "nested deeper than 64 levels");
  expect_error("{{ " + repeat("[", 100'000) + repeat("]", 100'000) + " }}",
               "nested deeper than 64 levels");
  expect_error("{{ " + repeat("{1:", 100'000) + repeat("}", 100'000) + " }}",
               "nested deeper than 64 levels");
  expect_error("{{ " + repeat("-", 100'000) + "1 }}", "nested deeper than 64 levels");
  expect_error("{{ " + repeat("not ", 100'000) + "1 }}", "more than 200 operators");
  expect_error("{{ " + repeat("1 if 1 else ", 100'000) + "1 }}", "nested deeper than 64 levels");
  expect_error("{{ 1" + repeat(" + 1", 100'000) + " }}", "more than 200 operators");
  expect_error("{{ a" + repeat(".b", 100'000) + " }}", "more than 200 operators");
  expect_error("{{ a" + repeat("|upper", 100'000) + " }}", "more than 200 operators");
  expect_error("{{ a" + repeat("[0", 100'000) + repeat("]", 100'000) + " }}",
               "nested deeper than 64 levels");
  EXPECT_EQ(render("{{ 'a'" + repeat(" ~ 'a'", 1000) + " }}").size(), 1001u);
}

TEST(ChatTemplateLimits, RecursionOfMacros) {
  expect_error("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "calls nested deeper than 64");
  expect_error("{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}", "calls nested deeper than 64");
  expect_error("{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
               "calls nested deeper than 64");
  expect_error("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
               "calls nested deeper than 64");
  // Expressions within calls: the sum of both is bounded too, on a small stack as well.
  std::string deep = "m(x)";
  for (int i = 0; i < 50; ++i) deep = "(" + deep + " ~ '')";
  expect_error("{% macro m(x) %}{{ " + deep + " }}{% endmacro %}{{ m(1) }}", "nested deeper");
}

TEST(ChatTemplateLimits, StepsAndSizes) {
  const std::string loop = "{% for a in range(100000) %}{% for b in range(100000) %}";
  expect_error(loop + "{% endfor %}{% endfor %}", "evaluation steps");
  expect_error("{{ range(100001) }}", "more than the limit of 100000");
  expect_error("{{ 'ab' * 5000000 }}", "exceeds the limit");
  expect_error("{{ 'ab' * 9223372036854775807 }}", "exceeds the limit");
  expect_error("{{ [1] * 9223372036854775807 }}", "exceeds the limit");
  expect_error("{{ ('a' * 8000000) ~ ('a' * 8000000) }}", "more than the limit");
  expect_error("{{ ('a' * 100000)|replace('a', 'b' * 1000) }}", "more than the limit");
  expect_error("{{ ('a' * 100000).replace('', 'b' * 1000) }}", "more than the limit");
  expect_error("{{ range(100000)|join('x' * 1000) }}", "more than the limit");
  expect_error("{{ ('x' * 1000).join('a' * 100000) }}", "more than the limit");
  expect_error("{{ 'a'.center(99999999999) }}", "more than the limit");
  expect_error("{{ 'a'.zfill(99999999999) }}", "more than the limit");
  expect_error("{{ 'a'|indent(99999999999) }}", "more than the limit");
  expect_error("{{ [1]|tojson(indent=99999999999) }}", "more than the limit");
  expect_error("{{ '%999999999d' % 1 }}", "above the limit");
  expect_error("{{ '{:999999999}'.format(1) }}", "above the limit");
  expect_error("{{ [1]|batch(99999999999, 0)|list }}", "more than the limit");
  expect_error("{{ ('a' * 8000000)|list|length }}", "more than the limit");
  expect_error("{{ ('a,' * 4000000).split(',')|length }}", "more than the limit");
  expect_error(
      "{% set ns = namespace(s='ab') %}{% for i in range(40) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "more than the limit");
  expect_error(
      "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "more than the limit");
  expect_error("{% for i in range(100000) %}{{ 'x' * 100 }}{% endfor %}", "more than the limit");
  expect_error(
      "{% set x = 'a' * 8000000 %}{% for i in range(10000) %}{% if x[7] == x[6] %}"
      "{% endif %}{% endfor %}",
      "evaluation steps");
  expect_error(
      "{% set x = ('a' * 4000000) ~ 'b' %}{% for i in range(10000) %}"
      "{% if (('a' * 2000000) ~ 'c') in x %}{% endif %}{% endfor %}",
      "evaluation steps");
}

TEST(ChatTemplateLimits, ValuesThatGrowInDepthOrShare) {
  const std::string wrap =
      "{% set ns = namespace(v=1) %}{% for i in range(N) %}{% set ns.v = [ns.v, ns.v] %}{% endfor "
      "%}";
  const auto with = [&](const std::string& n, const std::string& rest) {
    std::string source = wrap;
    return source.replace(source.find('N'), 1, n) + rest;
  };
  expect_error(with("100000", ""), "nested deeper than 64 levels");
  expect_error(with("60", "{{ ns.v }}"), "more than the limit");
  expect_error(with("60", "{{ ns.v|tojson }}"), "more than the limit");
  expect_error(with("60", "{{ ns.v == ns.v }}"), "evaluation steps");
  expect_error(with("60", "{{ ns.v < ns.v }}"), "evaluation steps");
  expect_error(
      "{% set ns = namespace(v=1) %}{% for i in range(60) %}"
      "{% set ns.v = (ns.v, ns.v) %}{% endfor %}{{ {ns.v: 1} }}",
      "more than the limit");
  // A namespace within itself: freed with the rendering, printed up to a depth.
  expect_error("{% set a = namespace() %}{% set a.a = [a] %}{{ a }}", "nested deeper");
  EXPECT_EQ(render("{% set a = namespace(n=1) %}{% set a.a = a %}{{ a.a.a.a.n }}"), "1");
}

TEST(ChatTemplate, RendersOnSeveralThreads) {
  const ChatTemplate chat(
      "{% set ns = namespace(n=0) %}{% for i in range(1000) %}"
      "{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}");
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (std::string& result : results) {
    threads.emplace_back([&] { result = chat.render(kHello); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& result : results) EXPECT_EQ(result, "499500");
}

}  // namespace
}  // namespace temper
