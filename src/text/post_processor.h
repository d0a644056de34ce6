#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace temper {

/// The `post_processor` of a tokenizer file: the tokens around a single text. Immutable.
class PostProcessor {
 public:
  PostProcessor() = default;  ///< Adds nothing.
  /// @param id_end  ids in the file must lie below it.
  /// @throws Error naming `where` and the type of a part that is not known.
  PostProcessor(const nlohmann::json& json, int64_t id_end, const std::string& where);

  [[nodiscard]] std::vector<int32_t> operator()(std::vector<int32_t> ids,
                                                bool add_special_tokens) const;

 private:
  struct Piece {
    bool is_text = false;
    std::vector<int32_t> ids;
  };
  void add(const nlohmann::json& json, int depth, int64_t id_end, const std::string& where);
  void read_template(const nlohmann::json& json, int64_t id_end, const std::string& where);
  bool has_template_ = false;
  std::vector<Piece> pieces_;
};

}  // namespace temper
