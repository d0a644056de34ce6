// A long system prompt put into the weights, so that no request pays for it any more (context
// distillation, Askell et al. 2021, arXiv 2112.00861). The house style below asks for answers of two
// lines, and shows some. The teacher is a small model with the style before every question; the
// student is the same model under an adapter, without it. The program prints how far the two are
// apart on questions that training never saw, how often answers keep the style, what a request saves,
// and after how many requests the training has paid for itself.
//
// Questions are plain text, not chat: as a system message the style moves this model (135 million
// parameters) hardly at all, as the beginning of a text it follows it nearly always.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "temper/core/error.h"
#include "temper/kernels/linear.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/distill.h"

namespace {

using temper::DistillRow;
using temper::DistillTrainer;
using temper::PolicyModel;
using temper::Sample;

const char* const kHouseStyle =
    R"(You answer the letters of a magazine's readers. Every letter is one question, and every answer has exactly two lines. The first line begins with "Short answer:" and says in one plain sentence what the reader wants to know. The second line begins with "Remember:" and gives one piece of advice that fits the question, also in one sentence. Nothing comes before the first line and nothing comes after the second one. Do not greet the reader, do not thank for the letter, do not write lists, headings or numbers of steps, and do not speak of yourself. Use everyday words that a child of twelve knows, keep each sentence below twenty words, and end each with a full stop.

These are answers that the editors liked.

Question: What is a glacier?
Short answer: A glacier is a thick mass of ice that moves slowly down a valley.
Remember: Never walk on a glacier without a guide.

Question: How do I keep bread fresh?
Short answer: Keep bread in a cloth bag at room temperature and slice only what you eat.
Remember: A fridge makes bread dry sooner.

Question: Why do leaves turn red?
Short answer: Leaves turn red because the green color fades in autumn and other colors show.
Remember: The best time to see them is a sunny week in October.

Question: What is a compass?
Short answer: A compass is a tool with a needle that points to the north.
Remember: Keep magnets and phones away from it.)";

/// Questions of three kinds; every fourth is kept for the test.
const std::vector<std::string> kThings = {
    "a volcano", "an island",  "a river",   "a desert",    "a comet",    "an eclipse", "a rainbow",
    "a magnet",  "a battery",  "a lighthouse", "a bridge", "a violin",   "a drum",     "a poem",
    "a novel",   "a museum",   "an orchard", "a beehive",  "a whale",    "an owl",     "a frog",
    "a spider",  "a mushroom", "a cactus",  "a vitamin",   "a fever",    "a muscle",   "a recipe",
    "yeast",     "vinegar",    "a budget",  "a bank",      "a tax",      "a map",      "a satellite",
    "a robot",   "a password", "a telescope", "a fossil",  "a tornado"};
const std::vector<std::string> kTasks = {
    "clean a window",     "plant a tree",       "grow tomatoes",      "cook rice",
    "boil an egg",        "make tea",           "bake a cake",        "store onions",
    "wash a sweater",     "iron a shirt",       "sharpen a knife",    "paint a wall",
    "fix a flat tire",    "fall asleep faster", "learn a poem",       "write a letter",
    "save money",         "pack a suitcase",    "read a map",         "feed a cat",
    "train a dog",        "stop a nosebleed",   "clean a bicycle chain", "water a cactus",
    "choose a melon",     "freeze soup",        "remember a name",    "learn to swim",
    "make a kite",        "save water",         "protect a password", "learn a language",
    "choose running shoes", "keep cheese fresh", "remove a stain",    "make friends"};
const std::vector<std::string> kWhys = {
    "is the sky blue",      "is the sea salty",    "do birds sing",        "do cats purr",
    "do we dream",          "do we sneeze",        "does bread rise",      "does ice float",
    "does the moon change", "do bees make honey",  "do onions make us cry", "does iron rust",
    "do stars twinkle",     "do we need sleep",    "does hair turn gray",  "do dogs wag their tails",
    "do volcanoes erupt",   "does wood float",     "do we yawn",           "is snow white",
    "do fish swim in groups", "do we have seasons", "does thunder follow lightning",
    "do leaves fall",       "do spiders make webs", "do we get hungry",    "is the desert dry",
    "does milk turn sour"};

std::vector<std::string> questions(bool held_out) {
  std::vector<std::string> out;
  const auto add = [&](const std::vector<std::string>& words, const std::string& before) {
    for (size_t i = 0; i < words.size(); ++i) {
      if ((i % 4 == 3) == held_out) out.push_back(before + words[i] + "?");
    }
  };
  add(kThings, "What is ");
  add(kTasks, "How do I ");
  add(kWhys, "Why ");
  return out;
}

/// The questions as student and teacher read them, nobody's answers behind them yet.
temper::DistillRows rows_of(const PolicyModel& model, bool held_out) {
  temper::CompletionData data;
  data.source = "questions of this example";
  data.form = temper::DataForm::kPrompt;
  for (const std::string& question : questions(held_out)) {
    temper::CompletionRecord row;
    row.prompt.text = "Question: " + question + "\n";
    row.line = data.records.size() + 1;
    data.records.push_back(row);
  }
  temper::DistillTokens how;
  how.system_prompt = kHouseStyle;
  return temper::tokenize_distill_rows(data, model.text(), how);
}

/// Whether an answer keeps the style: it ends, and has two lines with their beginnings and a full
/// stop each.
bool keeps_style(const Sample& s) {
  if (s.finish == temper::Finish::kLength) return false;
  const std::string text = s.text.substr(0, s.text.find("\n\n"));
  const size_t line = text.find('\n');
  return text.starts_with("Short answer: ") && line != std::string::npos && text[line - 1] == '.' &&
         text.substr(line).starts_with("\nRemember: ") && text.back() == '.' &&
         text.find('\n', line + 1) == std::string::npos;
}

temper::RolloutConfig sampling(double temperature) {
  return {.temperature = temperature, .max_new_tokens = 64, .stop = {"\n\n"}};
}

/// Of all threads, so that another program on the machine does not count.
double cpu_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

/// Greedy answers, how many of them keep the style, and what a request takes.
struct Answers {
  std::vector<Sample> samples;
  double style = 0;          ///< Share of answers.
  double prompt_tokens = 0;  ///< Mean of a request.
  double tokens = 0;         ///< Mean of an answer.
  double seconds = 0;        ///< CPU time of a request.
};

Answers ask(temper::CausalLM& lm, const PolicyModel& model, const std::vector<DistillRow>& rows,
            bool told) {
  temper::RolloutRequest request;
  for (const DistillRow& row : rows) {
    request.prompts.push_back(told ? row.teacher_prompt : row.student.prompt);
  }
  temper::RolloutEngine engine(lm, model.text(), sampling(0));
  const double begin = cpu_seconds();
  Answers out{.samples = engine.generate(request)};
  const auto count = static_cast<double>(rows.size());
  out.seconds = (cpu_seconds() - begin) / count;
  for (size_t i = 0; i < rows.size(); ++i) {
    out.style += keeps_style(out.samples[i]) ? 1 / count : 0;
    out.prompt_tokens += static_cast<double>(request.prompts[i].size()) / count;
    out.tokens += static_cast<double>(out.samples[i].ids.size()) / count;
  }
  return out;
}

void print_row(const char* name, const Answers& a) {
  std::printf("%-22s %9.1f %15.0f %15.1f %16.2f\n", name, 100 * a.style, a.prompt_tokens, a.tokens,
              a.seconds);
}

void print_answer(const char* name, const Sample& s) {
  std::printf("-- %s:\n%s\n", name, s.text.substr(0, s.text.find("\n\n")).c_str());
}

struct Options {
  std::string model = TEMPER_DEFAULT_MODEL;
  std::string output;
  int64_t steps = 24;
  int64_t rank = 16;
  double learning_rate = 1e-3;
  double beta = 0;
  double lambda = 0.25;
  int64_t seed = 1;
};

DistillTrainer::Parts parts_of(const Options& o, const PolicyModel& model) {
  DistillTrainer::Parts p;
  p.config.beta = o.beta;
  p.config.lambda = o.lambda;
  p.config.rows_per_step = 8;
  p.rollout = sampling(0.7);
  p.optimizer.weight_decay = 0;
  p.schedule = {.shape = "cosine", .learning_rate = o.learning_rate, .warmup_steps = 4};
  p.data = rows_of(model, false);
  p.held_out = rows_of(model, true).rows;
  p.total_steps = o.steps;
  p.seed = static_cast<uint64_t>(o.seed);
  return p;
}

void run(const Options& o) {
  const auto weights = temper::kernels::has_dot_instruction() ? temper::WeightDType::kBfloat16Dot
                                                              : temper::WeightDType::kBfloat16;
  temper::AdapterRunConfig adapter;
  adapter.r = o.rank;
  adapter.alpha = 2 * static_cast<double>(o.rank);
  PolicyModel model = PolicyModel::load_with_adapter(o.model, weights, adapter.settings(),
                                                     static_cast<uint64_t>(o.seed));
  double cost = -cpu_seconds();
  DistillTrainer trainer(model, temper::ReferenceModel::adapter_off(model), parts_of(o, model));
  cost += cpu_seconds();  // The teacher's answers to learn from, and to compare with.
  const std::vector<DistillRow> held_out = trainer.parts().held_out;
  const auto before = trainer.evaluate();
  const Answers told = ask(trainer.teacher().lm(), model, held_out, true);
  const Answers plain = ask(model.lm(), model, held_out, false);  // B is 0: the model itself.
  cost -= cpu_seconds();
  for (int64_t i = 0; i < o.steps; ++i) {
    const temper::Metrics m = trainer.step();
    std::printf("step %3lld  %s  divergence %.3f  agreement %.3f\n", static_cast<long long>(i + 1),
                m.at("on_policy") == 1 ? "own answers      " : "teacher's answers",
                m.at("divergence"), m.at("top1_agreement"));
    std::fflush(stdout);
  }
  cost += cpu_seconds();
  const auto after = trainer.evaluate();
  const Answers taught = ask(model.lm(), model, held_out, false);
  if (!o.output.empty()) model.lm().save_adapter(o.output);

  std::printf("\n%zu questions to learn from, %zu held out; the style takes %.0f tokens\n",
              trainer.parts().data.rows.size(), held_out.size(),
              told.prompt_tokens - plain.prompt_tokens);
  std::printf("%-22s %9s %15s %15s %16s\n", "held-out questions", "style, %", "prompt tokens",
              "answer tokens", "CPU s a request");
  print_row("style in the prompt", told);
  print_row("no style, before", plain);
  print_row("no style, after", taught);
  std::printf("divergence from the prompted model: %.3f before, %.3f after\n",
              before.metrics.at("eval/divergence"), after.metrics.at("eval/divergence"));
  std::printf("same likeliest token: %.1f %% before, %.1f %% after\n",
              100 * before.metrics.at("eval/top1_agreement"),
              100 * after.metrics.at("eval/top1_agreement"));
  const double saved = told.seconds - taught.seconds;
  std::printf("training took %.0f s of CPU; a request saves %.0f tokens and %.2f s: paid back after %.0f "
              "requests\n",
              cost, told.prompt_tokens - taught.prompt_tokens, saved,
              saved > 0 ? cost / saved : 0.0);
  for (size_t i = 0; i < held_out.size(); i += 11) {
    std::printf("\n%s\n", questions(true)[i].c_str());
    print_answer("style in the prompt", told.samples[i]);
    print_answer("no style, before", plain.samples[i]);
    print_answer("no style, after", taught.samples[i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Puts a long system prompt into an adapter.");
  Options o;
  app.add_option("--model", o.model, "GGUF file, Hugging Face folder or hub id")
      ->capture_default_str();
  app.add_option("--output", o.output, "Folder that the adapter is written to; empty: none");
  app.add_option("--steps", o.steps, "Optimizer steps of 8 questions")->capture_default_str();
  app.add_option("--rank", o.rank, "Of the adapter")->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "Of the adapter")->capture_default_str();
  app.add_option("--beta", o.beta, "0 forward KL, 1 reverse KL")->capture_default_str();
  app.add_option("--lambda", o.lambda, "Share of steps on the student's own answers")
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Of the adapter and every draw")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(o);
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
