#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "temper/nn/models.h"

namespace temper {

/// What a judge is asked to look at. Texts of strangers: a prompt never takes them for its own words.
struct JudgeTexts {
  std::string question;
  std::string answer;     ///< In a comparison: the one that is shown first.
  std::string other;      ///< In a comparison: the one that is shown second.
  std::string reference;  ///< A right answer, where the rubric asks for one.
};

/// A rubric that is shipped. Texts of our own.
struct JudgeRubric {
  std::string name;
  std::string about;
  std::string text;
};
/// "additive" (five points that add up, in the spirit of Yuan et al. 2024, arXiv 2401.10020),
/// "helpful", and "correct", which shows a right answer ({reference}).
[[nodiscard]] const std::vector<JudgeRubric>& judge_rubrics();
/// The text of a shipped rubric, or of a file. @throws Error listing the names.
[[nodiscard]] std::string judge_rubric_text(const std::string& name_or_file);

/// The templates that are shipped.
[[nodiscard]] const std::string& mark_template();
[[nodiscard]] const std::string& compare_template();

/// A judge's prompt: a template with a rubric in it, written as one user turn by the model's chat
/// template, or as it stands where the model has none.
///
/// Fields of a template: {rubric}, {scale} (the highest mark), {question}, {reference}; {answer} for
/// a mark; {first} and {second} for a comparison. A rubric may have fields too. What follows {reply}
/// is the beginning of the judge's own answer. Other words in braces are refused; a brace that no
/// letter follows is a brace.
///
/// Guards against what stands in the texts: their special tokens are spelled out, so no text ends a
/// turn or begins one; white space at their ends is dropped; and behind every line break of theirs
/// "> " is written (as templates write it before a field), so that none of their lines looks like
/// one of the prompt's. What a text says, a model may still believe (docs/judges.md).
class JudgePrompt {
 public:
  /// @throws Error for an unknown field, a field that is missing (`required`), a character of
  /// U+E000 to U+E03F in the template, or a chat template that does not write a turn as it stands.
  JudgePrompt(std::string_view template_text, std::string_view rubric, int64_t scale,
              const ModelText& model, const std::vector<std::string>& required);

  /// Token ids, piece by piece, none empty: equal texts in the beginning give equal pieces. Cut
  /// where a field begins and ends, so that this holds for every tokenizer.
  [[nodiscard]] std::vector<std::vector<int32_t>> encode(const JudgeTexts& texts) const;
  /// Whether it shows a right answer.
  [[nodiscard]] bool shows_reference() const;
  /// Ids of a reply behind the prompt: what `reply` adds to the ids of the prompt's last words.
  [[nodiscard]] std::vector<int32_t> encode_reply(std::string_view reply) const;

 private:
  enum class Field { kQuestion, kAnswer, kOther, kReference };
  struct Piece {
    std::vector<int32_t> ids;  ///< Of a piece of the template.
    Field field = Field::kQuestion;
    bool is_field = false;
    bool space = false;  ///< A space stands before the field, and belongs to its first token.
  };
  static std::string field_mark(Field field);
  static std::string with_marks(std::string_view text, std::string_view rubric, int64_t scale,
                                const std::vector<std::string>& required);
  void cut(std::string_view rendered, bool chat);
  void add_text(std::string_view text, bool chat);

  Tokenizer tokenizer_;
  std::vector<Piece> pieces_;
  std::string last_words_;
};

/// The text as a judge is shown it, behind "> ".
[[nodiscard]] std::string quote_for_judge(std::string_view text);

}  // namespace temper
