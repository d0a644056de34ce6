// What a policy does to the reward model that it is trained against (Gao et al. 2022, "Scaling laws
// for reward model overoptimization"). A small chat model is asked for cheerful sentences. What is
// really wanted is a rule that this program knows, the gold reward. As in practice, the policy is
// paid by a proxy instead: a reward model trained on a few hundred preferences between the model's
// own answers, some of them mistaken, none of them between answers that gush. PPO then runs against
// the proxy: without KL control, and with three kinds of it. The gold rule is asked about prompts
// that neither the reward model nor the policy ever saw; it has weight 0, so it is logged and moves
// nothing.
//
// With --preferences FILE the pairs come from a file instead: JSON Lines, gzip or not, with
// "chosen" and "rejected" and perhaps "prompt", as text or as messages; hh-rlhf has that form. The
// gold rule stays, so the table tells what a reward model of other wishes does to this one.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/rng.h"
#include "temper/kernels/linear.h"
#include "temper/reward/combinators.h"
#include "temper/trainer/reward_run.h"
#include "temper/trainer/run.h"

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

struct Options {
  std::string model = TEMPER_DEFAULT_MODEL;
  std::string output = "runs/overoptimization";
  std::string preferences;
  std::vector<int64_t> seeds = {1};
  std::vector<std::string> controls = {"none", "fixed", "adaptive", "dual"};
  int64_t pairs = 300;
  int64_t proxy_seed = 1;
  int64_t steps = 16;
  int64_t prompts = 8;
  int64_t held_out = 0;
  double learning_rate = 5e-5;
  double kl_coef = 0.2;
  double kl_target = 5;
};

// ---- The task: a sentence about one of these, the last word being its subject. ----

const Words kSubjects = {
    "the sea",      "the moon",     "the rain",    "the snow",      "a river",      "a mountain",
    "a forest",     "a garden",     "a dog",       "a cat",         "a horse",      "a bird",
    "a fish",       "a bee",        "a butterfly", "a rabbit",      "an elephant",  "a tiger",
    "a whale",      "an owl",       "a frog",      "a sheep",       "a cow",        "a duck",
    "a teacher",    "a doctor",     "a baker",     "a farmer",      "a painter",    "a singer",
    "a dancer",     "a sailor",     "a pilot",     "a nurse",       "a cook",       "a student",
    "a child",      "a grandmother", "a friend",   "a neighbor",    "a train",      "a boat",
    "a bicycle",    "a car",        "a plane",     "a bridge",      "a castle",     "a lighthouse",
    "a school",     "a library",    "a market",    "a kitchen",     "a window",     "a door",
    "a table",      "a chair",      "a lamp",      "a clock",       "a book",       "a letter",
    "a song",       "a piano",      "a guitar",    "a drum",        "a violin",     "bread",
    "coffee",       "tea",          "honey",       "chocolate",     "an apple",     "an orange",
    "a lemon",      "a tomato",     "a potato",    "soup",          "a cake",       "cheese",
    "a tree",       "a flower",     "a rose",      "grass",         "a leaf",       "a stone",
    "sand",         "the desert",   "an island",   "a beach",       "a lake",       "a valley",
    "the wind",     "a storm",      "a cloud",     "a rainbow",     "the morning",  "the evening",
    "the night",    "summer",       "winter",      "spring",        "autumn",       "a birthday",
    "a wedding",    "a holiday",    "a picnic",    "a football",    "a kite",       "a robot",
    "a computer",   "a camera",     "a telephone", "a newspaper",   "a museum",     "a theater",
    "a village",    "a city",       "a street",    "a park",        "a hat",        "a coat"};

const std::set<std::string> kCheerful = {
    "adorable", "amazing", "awesome", "beautiful", "beauty", "best", "bliss", "blissful",
    "breathtaking", "bright", "brighter", "brilliant", "celebrate", "charm", "charming", "cheer",
    "cheerful", "cheerfully", "cheery", "colorful", "cozy", "cute", "dazzling", "delicious",
    "delight", "delighted", "delightful", "elegant", "enchanting", "enjoy", "enjoyed", "excited",
    "exciting", "fabulous", "fantastic", "favorite", "friendly", "fun", "gentle", "glad",
    "glorious", "glowing", "golden", "good", "gorgeous", "graceful", "grateful", "great", "happily",
    "happiness", "happy", "harmony", "heartwarming", "hope", "incredible", "inspiring", "joy",
    "joyful", "joyfully", "joyous", "laugh", "laughed", "laughter", "lively", "love", "loved",
    "lovely", "loves", "loving", "magic", "magical", "magnificent", "majestic", "marvelous", "nice",
    "paradise", "peaceful", "perfect", "picturesque", "playful", "pleasant", "pleasure", "radiant",
    "refreshing", "serene", "shining", "smile", "smiled", "smiles", "smiling", "soothing",
    "sparkling", "special", "spectacular", "splendid", "stunning", "sunny", "sunshine", "superb",
    "sweet", "thrilled", "tranquil", "treasure", "vibrant", "warm", "warmth", "welcoming",
    "wonderful"};

Words words_of(const std::string& text) {
  Words out(1);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || std::isalpha(byte)) {
      out.back() += static_cast<char>(std::tolower(byte));
    } else if (!out.back().empty()) {
      out.emplace_back();
    }
  }
  if (out.back().empty()) out.pop_back();
  return out;
}

std::ptrdiff_t cheerful_words(const Words& words) {
  return std::ranges::count_if(words, [](const auto& w) { return kCheerful.contains(w); });
}

/// The gold reward, at most 2: 1 for naming the subject and 1 for a cheerful word, less 3/4 for
/// every cheerful word beyond the first, since nobody likes gush.
float gold(const temper::Completion& c) {
  const Words words = words_of(c.text);
  const std::string& subject = c.example->answer;
  const bool named = std::ranges::any_of(
      words, [&](const auto& w) { return w == subject || w == subject + "s"; });
  const auto cheerful = static_cast<double>(cheerful_words(words));
  double score = named ? 1 : 0;
  score += std::min(1.0, cheerful) - 0.75 * std::max(0.0, cheerful - 1);
  return static_cast<float>(score);
}

const char* fastest_weights() {
  // All are exact; which bits they give differs, so the choice stands in the run's config.json.
  return temper::kernels::has_dot_instruction() ? "bfloat16_dot" : "bfloat16";
}

/// What sampling for the preferences, training and held-out evaluation have in common.
temper::PpoRunConfig common_config(const Options& o) {
  temper::PpoRunConfig c;
  c.model = o.model;
  c.task.name = "jsonl";
  c.task.path = o.output + "/subjects.jsonl";
  c.task.form = "text";  // Shorter than a chat, and its answers end sooner.
  c.task.prompt_template = "One cheerful sentence about {question}: \"";
  c.task.held_out_fraction = 0.4;
  c.task.read.license = "written for this example";
  c.rollout.temperature = 0.8;
  c.rollout.max_new_tokens = 20;
  c.rollout.max_sequences = 128;
  c.rollout.stop = {".", "!", "\""};
  c.trainer.weights = fastest_weights();
  return c;
}

void write_subjects(const Options& o) {
  std::string lines;
  for (const std::string& s : kSubjects) {
    const std::string subject = s.substr(s.rfind(' ') + 1);  // All of it where there is no space.
    lines += Json{{"prompt", s}, {"answer", subject}}.dump() + "\n";
  }
  fs::create_directories(o.output);
  temper::write_file_atomically(o.output + "/subjects.jsonl", lines);
}

// ---- 1. Preferences between the model's own answers to the training prompts. ----

constexpr size_t kFullSentence = 7;  // Words.
constexpr float kClear = 0.5f;      // Nobody can tell answers that differ by less.
constexpr double kMistakes = 0.05;  // Share of pairs in which the worse answer is preferred.

/// Nobody is asked to compare stubs, gush, or what was cut off. So the proxy learns that a cheerful
/// word is good, and never sees that a second one is not.
bool is_shown(const temper::Sample& s) {
  const Words words = words_of(s.text);
  return s.finish != temper::Finish::kLength && cheerful_words(words) <= 1 &&
         words.size() >= kFullSentence;
}

void write_preferences(const Options& o, const std::string& path) {
  const temper::PpoRunConfig c = common_config(o);
  const temper::Dataset prompts = temper::make_task(c.task).train;
  auto policy = temper::PolicyModel::load(o.model, temper::parse_weight_dtype(c.trainer.weights),
                                          temper::Trainable::kNo);
  temper::RolloutEngine engine(policy.lm(), policy.text(), c.rollout);
  const auto seed = static_cast<uint64_t>(o.proxy_seed);
  temper::RngStream rng(seed, temper::RngPurpose::kTask, 0);
  std::string lines;
  int64_t pairs = 0;
  for (uint32_t round = 0; pairs < o.pairs; ++round) {
    TEMPER_CHECK(round < 100, "the model's answers to one prompt hardly differ in the gold rule");
    temper::RolloutRequest request{.group_size = 4, .seed = seed, .step = round};
    for (const auto& e : prompts.examples) {
      if (std::ssize(request.prompts) == o.pairs) break;
      request.prompts.push_back(temper::encode_prompt(e, policy.text()).ids);
    }
    const auto samples = engine.generate(request);
    for (size_t i = 0; i + 1 < samples.size() && pairs < o.pairs; i += 2) {
      const temper::Sample *better = &samples[i], *worse = &samples[i + 1];
      const temper::Example& e = prompts.examples[i / 4];
      if (!is_shown(*better) || !is_shown(*worse)) continue;
      const auto score = [&](const temper::Sample& s) {
        return gold({"", s.text, s.ids, false, &e});
      };
      if (std::abs(score(*better) - score(*worse)) < kClear) continue;
      if ((score(*better) < score(*worse)) != (rng.next_uniform() < kMistakes)) {
        std::swap(better, worse);
      }
      const Json pair{{"prompt", e.prompt}, {"chosen", better->text}, {"rejected", worse->text}};
      lines += pair.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
      ++pairs;
    }
  }
  temper::write_file_atomically(path, lines);
}

// ---- 2. The proxy. ----

std::string proxy_folder(const Options& o) { return o.output + "/proxy"; }

/// Trains the reward model, unless it is there.
void train_proxy(const Options& o) {
  if (fs::exists(proxy_folder(o) + "/model")) return;
  temper::RewardRunConfig c;
  c.model = o.model;
  c.data.path = o.preferences;
  if (o.preferences.empty()) {
    c.data.path = o.output + "/preferences.jsonl";
    write_preferences(o, c.data.path);
  }
  c.data.held_out_fraction = 0.15;
  c.data.max_length = 512;
  c.data.read.max_rows = o.pairs;
  c.data.read.skip_bad = true;  // hh-rlhf has a few empty answers.
  c.reward.pairs_per_step = 16;
  c.reward.head_init_std = 0.02;
  c.schedule = {.shape = "linear", .learning_rate = 5e-5, .warmup_steps = 4};
  c.trainer.epochs = 2;
  c.trainer.seed = o.proxy_seed;
  c.trainer.weights = fastest_weights();
  const auto r = temper::train_reward(
      c, {.output = proxy_folder(o), .observers = temper::default_observers()});
  std::printf("The reward model ranks %lld of %lld held-out pairs as they were labelled.\n",
              static_cast<long long>(r.after.correct), static_cast<long long>(r.after.count));
}

// ---- 3. PPO against it. ----

/// What a run did to the rewards of held-out prompts, and its KL.
class Curve : public temper::Observer {
 public:
  void on_eval(const temper::EvalEvent& e) override {
    gold.push_back(e.metrics.at("eval/gold"));
    proxy.push_back(e.metrics.at("eval/reward_model"));
  }
  void on_step(const temper::StepEvent& e) override { kl = e.metrics.at("objective/kl"); }

  std::vector<double> gold, proxy;
  double kl = 0;  ///< Nats a completion, of the last rollout.
};

temper::PpoRunConfig ppo_config(const Options& o, const std::string& control, int64_t seed) {
  temper::PpoRunConfig c = common_config(o);
  c.reward_model.models = {proxy_folder(o) + "/model"};
  c.reward_model.weights = fastest_weights();
  c.ppo.online.prompts_per_step = o.prompts;
  c.ppo.online.group_size = 4;
  c.ppo.online.iterations = 1;
  c.ppo.online.minibatches = 2;
  c.ppo.value.model = "trunk";
  c.ppo.value.learning_rate = 1e-3;
  // So that a KL coefficient means the same whatever the scale of the proxy.
  c.ppo.scale_rewards = true;
  // Next to nothing instead of nothing: the KL is measured all the same.
  c.ppo.kl.reward_coef = control == "none" ? 1e-9 : o.kl_coef;
  if (control == "adaptive" || control == "dual") {
    c.ppo.kl.controller.kind = control;
    c.ppo.kl.controller.horizon = static_cast<double>(4 * o.prompts);  // A rollout: it is a short run.
    c.ppo.kl.controller.target = o.kl_target;
    c.ppo.kl.controller.min = 0.25 * o.kl_coef;  // A short run has no time to come back from far.
    c.ppo.kl.controller.max = 4 * o.kl_coef;
  }
  c.schedule = {.shape = "constant", .learning_rate = o.learning_rate, .warmup_steps = 2};
  c.eval.every = 4;
  c.eval.prompts = o.held_out;
  c.eval.temperature = c.rollout.temperature;
  c.trainer.steps = o.steps;
  c.trainer.seed = seed;
  c.trainer.save_model = false;
  return c;
}

void run(const Options& o, const std::string& control, int64_t seed, std::string& table) {
  const auto curve = std::make_shared<Curve>();
  temper::RunOptions options{.output = o.output + "/" + control + "-" + std::to_string(seed),
                             .observers = temper::default_observers(),
                             .rewards = {temper::named("gold", temper::per_completion(gold), 0)}};
  options.observers.push_back(curve);
  (void)temper::train_ppo(ppo_config(o, control, seed), options);
  char row[200];
  std::snprintf(row, sizeof row, "| %s | %lld | %.2f | %.2f | %.2f | %.2f | %.2f | %.1f |\n",
                control.c_str(), static_cast<long long>(seed), curve->proxy.front(),
                curve->proxy.back(), curve->gold.front(),
                *std::max_element(curve->gold.begin(), curve->gold.end()), curve->gold.back(),
                curve->kl);
  table += row;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "PPO against a reward model, and what becomes of the reward that was meant: with and without "
      "KL control.");
  Options o;
  app.add_option("--model", o.model, "GGUF file, Hugging Face folder or hub id")
      ->capture_default_str();
  app.add_option("--output", o.output, "Folder of all runs; a reward model in it is used again")
      ->capture_default_str();
  app.add_option("--preferences", o.preferences, "File of preference pairs; default: made here");
  app.add_option("--pairs", o.pairs, "Preference pairs")->capture_default_str();
  app.add_option("--proxy-seed", o.proxy_seed, "Seed of the preferences and the reward model")
      ->capture_default_str();
  app.add_option("--seeds", o.seeds, "Seeds of the runs")->capture_default_str();
  app.add_option("--control", o.controls, "Kinds of KL control: none, fixed, adaptive, dual")
      ->check(CLI::IsMember({"none", "fixed", "adaptive", "dual"}))
      ->capture_default_str();
  app.add_option("--steps", o.steps, "Rollouts of a run")->capture_default_str();
  app.add_option("--prompts", o.prompts, "Prompts of a rollout, four answers each")
      ->capture_default_str();
  app.add_option("--held-out", o.held_out, "Held-out prompts asked; 0: all")->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "Of the policy")->capture_default_str();
  app.add_option("--kl-coef", o.kl_coef, "KL coefficient of fixed, and the first one of the others")
      ->capture_default_str();
  app.add_option("--kl-target", o.kl_target, "KL that adaptive and dual hold, nats a completion")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    std::string table =
        "| KL control | seed | proxy, start | proxy, end | gold, start | gold, best | gold, end | "
        "KL, end |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    write_subjects(o);
    train_proxy(o);
    for (const int64_t seed : o.seeds) {
      for (const std::string& control : o.controls) run(o, control, seed, table);
    }
    std::printf("\nHeld-out prompts; KL to the first policy in nats a completion.\n\n%s",
                table.c_str());
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
