#include "answer_json.h"

#include "temper/core/error.h"

namespace temper {

using Json = nlohmann::ordered_json;

Json answer_group_json(const AnswerGroup& group) {
  Json answers = Json::array();
  for (const TokenAnswer& a : group.answers) answers.push_back({{"ids", a.ids}, {"mask", a.mask}});
  return {{"prompt", group.prompt},
          {"answers", answers},
          {"label", group.label},
          {"weight", group.weight},
          {"line", group.line}};
}

AnswerGroup parse_answer_group(const Json& json) {
  AnswerGroup out;
  try {
    json.at("prompt").get_to(out.prompt);
    for (const Json& a : json.at("answers")) {
      out.answers.push_back({a.at("ids").get<std::vector<int32_t>>(),
                             a.at("mask").get<std::vector<uint8_t>>()});
    }
    json.at("label").get_to(out.label);
    json.at("weight").get_to(out.weight);
    json.at("line").get_to(out.line);
  } catch (const Json::exception& e) {
    fail("[resume] a row of the checkpoint cannot be read: ", e.what());
  }
  TEMPER_CHECK(!out.answers.empty(), "[resume] a row of the checkpoint has no answers");
  for (const TokenAnswer& a : out.answers) {
    TEMPER_CHECK(!a.ids.empty() && (a.mask.empty() || a.mask.size() == a.ids.size()),
                 "[resume] an answer of the checkpoint has no tokens, or a mask of another length");
  }
  return out;
}

}  // namespace temper
