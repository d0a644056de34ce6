// A policy that judges its own answers (Yuan et al. 2024, "Self-rewarding language models"), in a
// world small enough to be trained here in a minute, and with a gold score that the loop never sees.
//
// A question names two letters; an answer is a word of letters and exclamation marks. Gold, from 0 to
// 5: a point for each of at most four characters that are one of the two letters, one for an
// exclamation mark, and one off for each further one. A tiny language model learns from a file both to
// answer (carelessly) and to mark answers: its seed of ability. Then it goes on alone. In each
// iteration it samples answers, marks them itself, and learns the best against the worst by DPO.
//
//   clean    people marked all kinds of answers
//   hacked   people were never shown an answer with two exclamation marks, so the judge has seen that
//            one is good and never that more are bad
//   chance   as clean, but the marks that people gave were drawn by lot: a judge that knows nothing
//   gold     as clean, but gold itself labels: how far a judge without fault would lead
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/rng.h"
#include "temper/formats/hf_folder.h"
#include "temper/trainer/judge_reward.h"
#include "temper/trainer/offline_run.h"
#include "temper/trainer/preference_trainer.h"

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  std::string output = "runs/self_rewarding";
  std::vector<std::string> worlds = {"clean", "hacked", "chance", "gold"};
  std::vector<int64_t> seeds = {1, 2, 3};
  int64_t iterations = 3;
  int64_t prompts = 128;
  int64_t answers = 8;
  int64_t seed_steps = 300;
  double learning_rate = 3e-4;
};

// ---- The world. ----

const std::string kLetters = "abcdefgh";

/// Draws of one purpose.
class Dice {
 public:
  Dice(int64_t seed, uint64_t stream)
      : rng_(static_cast<uint64_t>(seed), temper::RngPurpose::kTask, stream) {}
  bool chance(double p) { return rng_.next_uniform() < p; }
  size_t below(size_t n) { return std::min(n - 1, static_cast<size_t>(rng_.next_uniform() * static_cast<double>(n))); }

 private:
  temper::RngStream rng_;
};

double gold(const std::string& wanted, const std::string& answer) {
  const auto bangs = std::ranges::count(answer, '!');
  const auto hits = std::ranges::count_if(answer, [&](char c) { return wanted.find(c) != wanted.npos; });
  const auto score = std::min<std::ptrdiff_t>(4, hits) + (bangs > 0 ? 2 - bangs : 0);
  return static_cast<double>(std::clamp<std::ptrdiff_t>(score, 0, 5));
}

/// All questions; every fifth is held out.
std::vector<std::string> questions(bool held_out) {
  std::vector<std::string> out;
  size_t i = 0;
  for (const char a : kLetters) {
    for (const char b : kLetters) {
      if (a != b && (i++ % 5 == 0) == held_out) out.push_back({a, b});
    }
  }
  return out;
}

/// An answer of somebody who hardly cares: `care` is the chance that a character is a wanted one.
std::string careless(Dice& dice, const std::string& wanted, double care, double bang) {
  std::string out;
  for (size_t n = 4 + dice.below(4); n > 0; --n) {
    if (dice.chance(bang)) out += '!';
    else out += dice.chance(care) ? wanted[dice.below(2)] : kLetters[dice.below(kLetters.size())];
  }
  return out;
}

std::string say(const std::string& wanted) { return "say " + wanted + ":"; }
/// The judge's prompt, as `mark.txt` has it.
std::string mark(const std::string& wanted, const std::string& answer) { return "mark " + say(wanted) + answer + "="; }

// ---- The model and its seed of ability. ----

/// A random Llama of three layers whose tokens are characters.
void write_model(const fs::path& folder, int64_t seed) {
  const std::string end = "<end>", characters = " !0123456789:=abcdefghijklmnopqrstuvwxyz";
  Json vocabulary = {{end, 0}};
  for (size_t i = 0; i < characters.size(); ++i) vocabulary[std::string(1, characters[i])] = i + 1;
  temper::ModelSource s;
  s.tokenizer.tokenizer_json =
      Json{{"added_tokens", {{{"id", 0}, {"content", end}, {"special", true}, {"normalized", false}}}},
           {"normalizer", nullptr}, {"pre_tokenizer", nullptr}, {"post_processor", nullptr},
           {"decoder", {{"type", "Fuse"}}},
           {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}}}}.dump();
  auto& c = s.config;
  const int64_t h = 96, inner = 256;
  c.family = "llama";
  c.hidden_size = h;
  c.intermediate_size = inner;
  c.layers = 3;
  c.heads = c.kv_heads = 6;
  c.head_dim = h / c.heads;
  c.vocab_size = static_cast<int64_t>(vocabulary.size());
  c.max_positions = 64;
  c.tied = true;
  c.eos_token_ids = s.generation.eos_token_ids = {0};
  std::vector<temper::WriteTensor> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    const auto width = static_cast<double>(shape.back());
    const bool norm = shape.size() == 1;
    tensors.push_back({std::move(name), std::move(shape),
                       [seed, norm, width, stream = tensors.size()](std::span<float> values) {
                         temper::RngStream rng(static_cast<uint64_t>(seed), temper::RngPurpose::kTask, 1000 + stream);
                         for (float& v : values) {
                           const double u = std::sqrt(3 / width) * (2 * rng.next_uniform() - 1);
                           v = static_cast<float>(norm ? 1.0 : u);
                         }
                       }});
  };
  add("model.embed_tokens.weight", {c.vocab_size, h});
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {h});
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) add(layer + "self_attn." + name + ".weight", {h, h});
    add(layer + "post_attention_layernorm.weight", {h});
    add(layer + "mlp.gate_proj.weight", {inner, h});
    add(layer + "mlp.up_proj.weight", {inner, h});
    add(layer + "mlp.down_proj.weight", {h, inner});
  }
  add("model.norm.weight", {h});
  temper::write_hf_folder(folder, s, tensors, {});
}

/// Trains the model to answer and to mark, unless it is there. @return its folder.
std::string seeded_model(const Options& o, const std::string& world, int64_t seed) {
  const fs::path folder = fs::path(o.output) / ((world == "gold" ? "clean" : world) + "-" + std::to_string(seed));
  if (fs::exists(folder / "seed/model")) return (folder / "seed/model").string();
  fs::create_directories(folder);
  write_model(folder / "random", seed);
  Dice dice(seed, 1);
  const auto all = questions(false);
  std::string rows;
  const int64_t per_step = 64;
  for (int64_t i = 0; i < o.seed_steps * per_step; ++i) {
    const std::string& wanted = all[dice.below(all.size())];
    Json row{{"prompt", say(wanted)}, {"completion", careless(dice, wanted, 0.2, 0.1)}};
    if (i % 4 != 0) {
      std::string answer;
      do {
        answer = careless(dice, wanted, dice.chance(0.5) ? 0.2 : 0.7, dice.chance(0.5) ? 0.1 : 0.4);
      } while (world == "hacked" && std::ranges::count(answer, '!') > 1);
      const double given = world == "chance" ? static_cast<double>(dice.below(6)) : gold(wanted, answer);
      row = {{"prompt", mark(wanted, answer)}, {"completion", std::to_string(static_cast<int>(given))}};
    }
    rows += row.dump() + "\n";
  }
  temper::write_file_atomically(folder / "seed.jsonl", rows);
  temper::OfflineRunConfig c = temper::read_offline_config("sft", "", "", {});
  c.model = (folder / "random").string();
  c.data.path = (folder / "seed.jsonl").string();
  c.offline.rows_per_step = per_step;
  c.schedule = {.shape = "cosine", .learning_rate = 3e-3, .warmup_steps = 50};
  c.trainer.seed = seed;
  (void)temper::train_offline(c, {.output = folder / "seed"});
  return (folder / "seed/model").string();
}

// ---- What is looked at from outside. ----

double mean(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double mx = mean(x), my = mean(y);
  double xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
    xy += (x[i] - mx) * (y[i] - my);
  }
  return xx * yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

temper::RolloutConfig rollout_config() {
  temper::RolloutConfig r;
  r.max_new_tokens = 10;
  r.max_sequences = 256;
  return r;
}

temper::JudgeConfig judge_config(const Options& o) {
  temper::JudgeConfig j;
  j.model = "policy";
  j.template_file = o.output + "/mark.txt";
  return j;
}

/// Marks of the judge, no mark counting 0, and gold, of the same answers.
struct Marked {
  std::vector<double> judge, gold;
  double bangs = 0;

  void add(temper::ModelJudge& by, const std::vector<std::pair<std::string, std::string>>& answers) {
    std::vector<temper::JudgeCase> cases;
    for (const auto& [wanted, answer] : answers) {
      cases.push_back({{say(wanted), answer, "", ""}, false});
      gold.push_back(::gold(wanted, answer));
      bangs += static_cast<double>(std::ranges::count(answer, '!'));
    }
    for (const auto& m : by.mark(cases)) judge.push_back(std::isnan(m.value) ? 0 : m.value);
    bangs /= static_cast<double>(answers.size());
  }
};

/// The policy's answers to held-out questions (their marks, gold, exclamation marks), and how well it
/// judges answers of strangers (correlation with gold).
using Look = std::array<double, 4>;

Look measure(const temper::PolicyModel& policy, temper::ModelJudge& judge) {
  temper::RolloutEngine engine(policy.lm(), policy.text(), rollout_config());
  temper::RolloutRequest request{.group_size = 32, .seed = 77};
  const auto held_out = questions(true);
  for (const auto& wanted : held_out) request.prompts.push_back(policy.text().tokenizer().encode(say(wanted)));
  std::vector<std::pair<std::string, std::string>> own, others;
  for (const auto& s : engine.generate(request)) own.emplace_back(held_out[static_cast<size_t>(s.prompt)], s.text);
  Dice dice(99, 2);
  for (int i = 0; i < 500; ++i) {
    const std::string& wanted = held_out[dice.below(held_out.size())];
    others.emplace_back(wanted, careless(dice, wanted, 0.5, dice.chance(0.5) ? 0.1 : 0.4));
  }
  Marked mine, given;
  mine.add(judge, own);
  given.add(judge, others);
  return {mean(mine.judge), mean(mine.gold), mine.bangs, correlation(given.judge, given.gold)};
}

/// "mean (least to most)" over the seeds of one iteration, for each number.
std::string table_row(const std::string& head, const std::vector<Look>& seeds) {
  std::string row = "| " + head + " |";
  for (size_t k = 0; k < Look().size(); ++k) {
    std::vector<double> v;
    for (const Look& look : seeds) v.push_back(look[k]);
    const auto [least, most] = std::ranges::minmax(v);
    char cell[64];
    std::snprintf(cell, sizeof cell, " %.2f (%.2f to %.2f) |", mean(v), least, most);
    row += cell;
  }
  return row + "\n";
}

// ---- The loop. ----

/// What was seen at the beginning and after each iteration.
std::vector<Look> run(const Options& o, const std::string& world, int64_t seed) {
  auto policy = temper::PolicyModel::load(seeded_model(o, world, seed), temper::WeightDType::kFloat32);
  const auto judge = temper::make_judge(judge_config(o), policy);
  temper::SampledPairs::Parts source;
  source.config.prompts_per_round = o.prompts;
  source.config.completions = o.answers;
  source.rollout = rollout_config();
  for (const auto& wanted : questions(false)) source.prompts.examples.push_back({.prompt = say(wanted), .answer = wanted});
  source.labeler = temper::judge_labeler(judge);
  if (world == "gold") {
    source.labeler = {.name = "gold", .scores = temper::per_completion([](const temper::Completion& c) {
                        return static_cast<float>(gold(c.example->answer, c.text));
                      })};
  }
  std::vector<Look> seen;
  // Answers are labelled where an iteration begins: there the outside looks in.
  source.labeler.scores = [&, inner = source.labeler.scores](std::span<const temper::Completion> c) {
    seen.push_back(measure(policy, *judge));
    std::fputs(table_row(world + " | " + std::to_string(seen.size() - 1), {seen.back()}).c_str(), stderr);
    return inner(c);
  };
  source.seed = static_cast<uint64_t>(seed);
  temper::OfflineLoss loss("dpo", temper::online_preference_objectives());
  temper::config_set(temper::config_fields(loss), "loss_type=sigmoid,sft");
  temper::PreferenceTrainer::Parts parts;
  parts.config.reference = "round";
  parts.config.rows_per_step = 16;
  parts.objective = loss.build();
  parts.needs = loss.needs();
  parts.schedule = {.shape = "constant", .learning_rate = o.learning_rate};
  parts.source = std::make_unique<temper::SampledPairs>(policy, std::move(source));
  parts.beta = loss.setting("beta");
  parts.total_steps = (o.iterations + 1) * ((o.prompts + 15) / 16);
  parts.seed = static_cast<uint64_t>(seed);
  temper::PreferenceTrainer trainer(policy, std::move(parts));
  while (std::ssize(seen) <= o.iterations) (void)trainer.step();  // The last round only looks.
  return seen;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A tiny model that learns from its own judgement, and a gold score that watches.");
  Options o;
  app.add_option("--output", o.output, "Folder; seeded models in it are used again")->capture_default_str();
  app.add_option("--worlds", o.worlds, "clean, hacked, chance, gold")
      ->check(CLI::IsMember({"clean", "hacked", "chance", "gold"}))
      ->capture_default_str();
  app.add_option("--seeds", o.seeds, "Seeds of models and loops")->capture_default_str();
  app.add_option("--iterations", o.iterations, "Rounds of answers, marks and learning")->capture_default_str();
  app.add_option("--prompts", o.prompts, "Questions of an iteration")->capture_default_str();
  app.add_option("--answers", o.answers, "Answers to each")->capture_default_str();
  app.add_option("--seed-steps", o.seed_steps, "Steps of seed training, 64 rows each")->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "Of the loop")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    fs::create_directories(o.output);
    temper::write_file_atomically(o.output + "/mark.txt", "mark {question}{answer}=");
    std::string table =
        "| world | iteration | own mark | gold | exclamation marks | judge against gold |\n"
        "| --- | --- | --- | --- | --- | --- |\n";
    for (const std::string& world : o.worlds) {
      std::vector<std::vector<Look>> iterations(static_cast<size_t>(o.iterations + 1));
      for (const int64_t seed : o.seeds) {
        const auto seen = run(o, world, seed);
        for (size_t i = 0; i < iterations.size(); ++i) iterations[i].push_back(seen[i]);
      }
      for (size_t i = 0; i < iterations.size(); ++i) {
        table += table_row(world + " | " + std::to_string(i), iterations[i]);
      }
    }
    std::printf("Answers to held-out questions; mean over seeds (least to most). The last column is a "
                "correlation on answers of others.\n\n%s", table.c_str());
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
