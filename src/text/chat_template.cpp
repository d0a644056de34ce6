#include "temper/text/chat_template.h"

#include <nlohmann/json.hpp>

#include "jinja_interpreter.h"
#include "jinja_parser.h"
#include "jinja_text.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";
constexpr const char* kReasoningFields[] = {"reasoning_content", "thinking", "reasoning"};

/// Keys that are null go: many templates would print "None" for them.
Json without_nulls(const Json& message) {
  Json out = Json::object();
  for (const auto& item : message.items()) {
    if (!item.value().is_null()) out[item.key()] = item.value();
  }
  return out;
}

/// Fills `reasoning_content` and `thinking` from whichever name the caller used.
Json with_reasoning(const Json& message) {
  for (const char* field : kReasoningFields) {
    const auto it = message.find(field);
    if (it == message.end()) continue;
    Json out = Json::object();
    out["thinking"] = *it;
    for (const auto& item : message.items()) out[item.key()] = item.value();
    out["reasoning_content"] = *it;
    return out;
  }
  return message;
}

Json prepare(const Json& messages) {
  TEMPER_CHECK(messages.is_array(), "[chat_template] messages must be an array of objects, got ",
               messages.type_name());
  TEMPER_CHECK(!messages.empty(), "[chat_template] no messages: expected at least one");
  Json out = Json::array();
  for (const Json& message : messages) {
    TEMPER_CHECK(message.is_object(), "[chat_template] message ", out.size(),
                 " must be an object with role and content, got ", message.type_name());
    out.push_back(with_reasoning(without_nulls(message)));
  }
  return out;
}

/// Marks the end of the last message's text; returns that text.
std::string append_tag(Json& message, const std::string& source) {
  TEMPER_CHECK(source.find("content") != std::string::npos,
               "[chat_template] continue_final_message: the template does not use content");
  const auto content = message.find("content");
  TEMPER_CHECK(content != message.end(),
               "[chat_template] continue_final_message: the last message has no content");
  Json* text = &*content;
  if (content->is_array()) {
    text = nullptr;
    for (Json& part : *content) {
      if (part.is_object() && part.contains("text")) text = &part["text"];
    }
  }
  TEMPER_CHECK(text != nullptr && text->is_string(),
               "[chat_template] continue_final_message: the last message has no text to continue");
  std::string original = text->get<std::string>();
  *text = original + std::string(kContinueTag);
  return original;
}

/// Cuts the rendering behind the text of the last message.
std::string cut_at_tag(const std::string& rendered, const std::string& final_text) {
  const std::string_view bare = jinja::strip_text(kContinueTag, nullptr, true, true);
  const size_t at = rendered.rfind(bare);
  const std::string_view wanted = jinja::strip_text(final_text, nullptr, true, true);
  TEMPER_CHECK(at != std::string::npos && rendered.find(wanted) != std::string::npos,
               "[chat_template] continue_final_message: the template does not show the last "
               "message as it is, so it cannot be continued");
  const std::string_view head = std::string_view(rendered).substr(0, at);
  // Without the blank behind it the template has stripped the text, so its end is stripped too.
  const bool kept = rendered.compare(at, kContinueTag.size(), kContinueTag) == 0;
  return std::string(kept ? head : jinja::strip_text(head, nullptr, false, true));
}

}  // namespace

class ChatTemplate::Impl {
 public:
  explicit Impl(std::string_view text) : source(text) {
    try {
      jinja::Parser parser(source);
      body = parser.parse();
      has_generation = parser.has_generation();
    } catch (const Error& error) {
      fail("[chat_template] ", error.what());
    }
  }

  Rendered render(const Json& messages, const ChatTemplateOptions& options, bool spans) const;

  std::string source;
  jinja::Body body;
  bool has_generation = false;

 private:
  static jinja::Interpreter::Setup setup(const Json& messages, const ChatTemplateOptions& options);
};

jinja::Interpreter::Setup ChatTemplate::Impl::setup(const Json& messages,
                                                    const ChatTemplateOptions& options) {
  jinja::Interpreter::Setup setup;
  setup.unix_time = options.unix_time;
  jinja::Dict& variables = setup.variables;
  for (const auto& [name, token] : options.special_tokens) {
    variables.set(name, jinja::Value(token));
  }
  variables.set("messages", jinja::from_json(messages));
  const auto optional = [](const Json* json) {
    return json == nullptr ? jinja::Value() : jinja::from_json(*json);
  };
  variables.set("tools", optional(options.tools));
  variables.set("documents", optional(options.documents));
  variables.set("add_generation_prompt",
                jinja::Value(options.add_generation_prompt && !options.continue_final_message));
  if (options.extra != nullptr) {
    TEMPER_CHECK(options.extra->is_object(), "extra must be an object, got ",
                 options.extra->type_name());
    for (const auto& item : options.extra->items()) {
      variables.set(item.key(), jinja::from_json(item.value()));
    }
  }
  return setup;
}

ChatTemplate::Rendered ChatTemplate::Impl::render(const Json& messages,
                                                  const ChatTemplateOptions& options,
                                                  bool spans) const {
  Json chat = prepare(messages);
  std::string final_text;
  if (options.continue_final_message) final_text = append_tag(chat.back(), source);
  int line = 0;
  Rendered result;
  try {
    jinja::Interpreter::Setup variables = setup(chat, options);
    variables.track_generation = spans;
    jinja::Interpreter interpreter(body, std::move(variables));
    try {
      result.text = interpreter.run();
    } catch (const Error&) {
      line = interpreter.line();
      throw;
    }
    result.generation = interpreter.generation();
  } catch (const Error& error) {
    if (line == 0) fail("[chat_template] ", error.what());
    fail("[chat_template] line ", line, ": ", error.what());
  }
  if (options.continue_final_message) {
    result.text = cut_at_tag(result.text, final_text);
    for (auto& [start, end] : result.generation) {
      start = std::min(start, result.text.size());
      end = std::min(end, result.text.size());
    }
  }
  return result;
}

ChatTemplate::ChatTemplate(std::string_view source_text)
    : impl_(std::make_shared<const Impl>(source_text)) {}

std::string ChatTemplate::render(const Json& messages, const ChatTemplateOptions& options) const {
  return impl_->render(messages, options, false).text;
}

ChatTemplate::Rendered ChatTemplate::render_with_spans(const Json& messages,
                                                       const ChatTemplateOptions& options) const {
  return impl_->render(messages, options, true);
}

bool ChatTemplate::has_generation_blocks() const { return impl_->has_generation; }

}  // namespace temper
