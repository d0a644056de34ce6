// Golden vectors: real templates, looked up where scripts/setup unpacks them, over conversations of
// our own. Expected are digests of what Python's jinja2 renders (tests/golden/make_templates.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "sha256.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/text/chat_template.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

std::string digest(const std::string& text) { return test::sha256(text).substr(0, 32); }

Json golden() {
  setenv("TZ", "UTC", 1);
  tzset();
  return Json::parse(
      read_text_file(std::string(TEMPER_SOURCE_DIR) + "/tests/golden/templates/renderings.json"));
}

/// As json.dumps writes nested lists.
std::string spans_text(const std::vector<std::pair<size_t, size_t>>& spans) {
  std::string out = "[";
  for (const auto& [start, end] : spans) {
    if (out.size() > 1) out += ", ";
    out += "[" + std::to_string(start) + ", " + std::to_string(end) + "]";
  }
  return out + "]";
}

const Json* pointer(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

void check_case(const ChatTemplate& chat, const Json& data, const Json& expected, size_t i) {
  const Json& one = data["cases"][i];
  ChatTemplateOptions options;
  options.add_generation_prompt = one.value("add_generation_prompt", false);
  options.continue_final_message = one.value("continue_final_message", false);
  options.special_tokens = data["special_tokens"].get<std::map<std::string, std::string>>();
  options.tools = pointer(one, "tools");
  options.documents = pointer(one, "documents");
  options.extra = pointer(one, "extra");
  options.unix_time = data["unix_time"].get<int64_t>();
  const std::string wanted = expected["results"][i];
  try {
    const ChatTemplate::Rendered result = chat.render_with_spans(one["messages"], options);
    EXPECT_EQ(digest(result.text), wanted) << result.text;
    EXPECT_EQ(chat.render(one["messages"], options), result.text);
    const std::string spans = expected.contains("spans") ? expected["spans"][i] : "";
    if (!spans.empty()) {
      EXPECT_EQ(digest(spans_text(result.generation)), spans);
    }
  } catch (const Error& error) {
    EXPECT_EQ(wanted, "error") << error.what();
  }
}

void check_template(const std::string& source, const Json& data, const Json& expected) {
  const ChatTemplate chat(source);
  EXPECT_EQ(chat.has_generation_blocks(), expected.contains("spans"));
  for (size_t i = 0; i < data["cases"].size(); ++i) {
    SCOPED_TRACE(data["cases"][i]["name"].get<std::string>());
    check_case(chat, data, expected, i);
  }
}

TEST(JinjaTemplates, RenderAsInPython) {
  const Json data = golden();
  size_t checked = 0, missing = 0, other_version = 0;
  for (const auto& [name, expected] : data["templates"].items()) {
    const auto path = std::filesystem::path(TEMPER_DEPS_DIR) / "templates" / name;
    if (name == "gguf") continue;
    if (!std::filesystem::exists(path)) {
      ++missing;
      continue;
    }
    const std::string source = read_text_file(path);
    if (test::sha256(source) != expected["sha256"].get<std::string>()) {
      ++other_version;
      continue;
    }
    SCOPED_TRACE(name);
    check_template(source, data, expected);
    ++checked;
  }
  if (checked == 0) {
    GTEST_SKIP() << missing << " templates are not in " << TEMPER_DEPS_DIR << "/templates, "
                 << other_version << " are of another version";
  }
  EXPECT_EQ(missing, 0u) << "some of the templates only";
  EXPECT_EQ(other_version, 0u) << "templates changed: run make_templates.py again";
}

/// The string behind the key in the GGUF header: u64 key length, key, u32 type 8, u64 length, text.
std::string gguf_template(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file->bytes().data()),
                               std::min<size_t>(file->bytes().size(), 16 << 20));
  const std::string_view key = "tokenizer.chat_template";
  const size_t at = bytes.find(key);
  if (at == std::string_view::npos) return {};
  uint64_t size = 0;
  std::memcpy(&size, bytes.data() + at + key.size() + 4, sizeof size);
  return std::string(bytes.substr(at + key.size() + 12, size));
}

TEST(JinjaTemplates, TemplateOfTheDefaultModel) {
  const auto path =
      std::filesystem::path(TEMPER_DEPS_DIR) / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is missing";
  const Json data = golden();
  const std::string source = gguf_template(path);
  ASSERT_EQ(test::sha256(source), data["templates"]["gguf"]["sha256"].get<std::string>());
  check_template(source, data, data["templates"]["gguf"]);
}

}  // namespace
}  // namespace temper
