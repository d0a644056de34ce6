// Golden vectors: small templates of our own, rendered by Python's jinja2 with the settings of
// transformers (tests/golden/make_templates.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/text/chat_template.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

Json snippets() {
  setenv("TZ", "UTC", 1);
  tzset();
  return Json::parse(
      read_text_file(std::string(TEMPER_SOURCE_DIR) + "/tests/golden/templates/snippets.json"));
}

void check(const Json& data, const Json& snippet) {
  const std::string text = snippet["template"];
  const Json messages = Json::array({{{"role", "user"}, {"content", "x"}}});
  ChatTemplateOptions options;
  options.unix_time = data["unix_time"].get<int64_t>();
  if (snippet.contains("uses_variables")) options.extra = &data["variables"];
  try {
    const std::string result = ChatTemplate(text).render(messages, options);
    if (snippet.contains("result")) {
      EXPECT_EQ(result, snippet["result"].get<std::string>()) << text;
    } else {
      ADD_FAILURE() << text << "\n  gave '" << result << "', Python fails: " << snippet["error"];
    }
  } catch (const Error& error) {
    if (snippet.contains("result")) {
      ADD_FAILURE() << text << "\n  failed: " << error.what() << "\n  Python gives "
                    << snippet["result"];
    } else {
      EXPECT_NE(std::string(error.what()).find(snippet["error"].get<std::string>()),
                std::string::npos)
          << text << "\n  says: " << error.what() << "\n  Python says: " << snippet["error"];
    }
  }
}

void check_kind(std::string_view kind, size_t at_least) {
  const Json data = snippets();
  size_t n = 0;
  for (const Json& snippet : data["snippets"]) {
    if (!snippet["name"].get_ref<const std::string&>().starts_with(kind)) continue;
    SCOPED_TRACE(snippet["name"].get<std::string>());
    check(data, snippet);
    ++n;
  }
  EXPECT_GE(n, at_least);
}

TEST(JinjaSnippets, ExpressionsPrintAsInPython) { check_kind("expression:", 600); }
TEST(JinjaSnippets, ExpressionsFailWherePythonFails) { check_kind("failing:", 120); }
TEST(JinjaSnippets, SyntaxErrors) { check_kind("syntax:", 45); }
TEST(JinjaSnippets, BlocksAndWhiteSpace) { check_kind("block:", 130); }

}  // namespace
}  // namespace temper
