// A restaurant recommender out of a small language model. From a survey (guests, restaurants, who
// liked which) it makes pairs: the guest's profile is the prompt, the card of the restaurant that
// the guest rated higher is the better answer, that of another one the worse. An adapter is trained
// on them by DPO and one by SimPO. Then each guest is asked about a liked restaurant that was held
// out, among others that the guest did not rate; popularity and matrix factorisation are asked the
// same. Whoever wins, the table says so.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "baselines.h"
#include "cache.h"
#include "ranking.h"
#include "recommender.h"
#include "temper/core/error.h"
#include "temper/nn/adapter.h"

namespace restaurant {
namespace {

struct Options {
  std::string data;
  std::string model = TEMPER_DEFAULT_MODEL;
  std::vector<std::string> methods = {"dpo", "simpo"};
  std::string guest;
  std::string output = "runs/restaurant_dpo";
  TrainConfig train;
  SplitConfig split;
  size_t unrated = 4;
};

Scorer by_place_and_guest(const std::vector<Trial>& trials,
                          const std::function<double(size_t guest, size_t place)>& score) {
  return [&trials, score](size_t i) {
    std::vector<double> out;
    for (const size_t p : trials[i].places) out.push_back(score(trials[i].guest, p));
    return out;
  };
}

/// A recommender's standings, trial by trial.
struct Result {
  std::string name;
  std::vector<Standing> test;
};

/// Results of the trials, and what was tried on the guests that are for choosing.
class Contest {
 public:
  Contest(const Options& options, const Survey& survey)
      : options_(options), survey_(survey), split_(leave_one_out(survey, options.split)) {
    TEMPER_CHECK(!split_.test.empty() && !split_.validation.empty(),
                 "too few guests liked a restaurant and rated another one");
    preferences_ = rated_pairs(split_.train);
    rated_ = preferences_.size();
    for (const Preference& p : unrated_pairs(split_.train, survey.places.size(), options.unrated,
                                             options.split.seed)) {
      preferences_.push_back(p);
    }
  }

  void describe() const {
    std::printf(
        "%zu guests, %zu places, %zu ratings. Pairs to learn from: %zu of two ratings, %zu of a liked "
        "place and an unrated one.\nHeld out: %zu liked places for the result, %zu for choosing; each "
        "stands among %zu to %zu places.\n\n",
        survey_.guests.size(), survey_.places.size(), survey_.ratings.size(), rated_,
        preferences_.size() - rated_, split_.test.size(), split_.validation.size(), fewest(), most());
  }

  void add_baselines() {
    const auto likes = popularity(split_.train, survey_.places.size());
    const auto always = [](size_t, size_t) { return 0.0; };
    const auto popular = [&](size_t, size_t p) { return likes[p]; };
    const auto nearby = [&](size_t g, size_t p) {
      return likes[p] + (survey_.guests[g].town == survey_.places[p].town ? 1e6 : 0);
    };
    add("random", by_place_and_guest(split_.test, always));
    add("popularity", by_place_and_guest(split_.test, popular));
    add("popularity in the guest's town", by_place_and_guest(split_.test, nearby));
    add_factorisation();
  }

  void add_language_models() {
    for (const std::string& method : options_.methods) {
      TrainConfig config = options_.train;
      config.method = method;
      const SurveyTokens& tokens = tokenized();
      const std::string folder = options_.output + "/" + method;
      const std::string settings = settings_of(options_.model, tokens, preferences_, config);
      const bool kept = has_adapter(folder, settings);
      auto policy = kept ? load_adapter(options_.model, folder)
                         : train_adapter(options_.model, tokens, preferences_, config);
      if (!kept) policy.lm().save_adapter(folder);
      const TrialScores validation =
          scores(policy.lm(), settings, split_.validation, "validation", method);
      const TrialScores test = scores(policy.lm(), settings, split_.test, "test", method);
      if (base_test_.empty()) add_untrained(policy.lm());
      const Rule rule = choose(method, validation,
                               {Rule::kSum, Rule::kMean, Rule::kLift, Rule::kMeanLift});
      add(method + " by " + rule_name(rule),
          [&](size_t i) { return ranked_by(rule, test[i], base_test_[i]); });
      if (method == options_.methods.front()) recommend(policy.lm(), rule);
    }
  }

  void print() const {
    std::printf("\nChosen on %zu guests by NDCG@10:\n%s\n", split_.validation.size(), tried_.c_str());
    std::printf(
        "%zu other guests; in brackets 95 %% bootstrap intervals over guests.\n\n"
        "| ranked by | HR@1 | HR@5 | HR@10 | NDCG@5 | NDCG@10 | AUC | NDCG@10 of the best tuned less this |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        split_.test.size());
    for (const Result& r : results_) {
      const auto words = [](const Estimate& e) {
        char text[64];
        std::snprintf(text, sizeof text, " %.3f [%.3f, %.3f] |", e.mean, e.low, e.high);
        return std::string(text);
      };
      const auto cell = [&](const std::function<double(size_t)>& value) {
        std::vector<double> values;
        for (size_t i = 0; i < r.test.size(); ++i) values.push_back(value(i));
        return words(bootstrap(values, options_.split.seed));
      };
      std::string row = "| " + r.name + " |";
      for (const int64_t k : {1, 5, 10}) row += cell([&](size_t i) { return r.test[i].hit_rate(k); });
      for (const int64_t k : {5, 10}) row += cell([&](size_t i) { return r.test[i].ndcg(k); });
      row += cell([&](size_t i) { return r.test[i].auc(); });
      row += words(difference(best_tuned(), r));
      std::printf("%s\n", row.c_str());
    }
    std::printf("\n%s\n", verdict().c_str());
  }

 private:
  [[nodiscard]] size_t fewest() const { return among().front(); }
  [[nodiscard]] size_t most() const { return among().back(); }
  [[nodiscard]] std::vector<size_t> among() const {
    std::vector<size_t> out;
    for (const auto* trials : {&split_.test, &split_.validation}) {
      for (const Trial& t : *trials) out.push_back(t.places.size());
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  void add(const std::string& name, const Scorer& scorer) {
    results_.push_back({name, standings(split_.test.size(), scorer)});
  }

  void note(const std::string& what, double ndcg) {
    char line[160];
    std::snprintf(line, sizeof line, "  %-44s %.3f\n", what.c_str(), ndcg);
    tried_ += line;
  }

  /// Factors, decay and the number of epochs that do best on the guests for choosing. Unrated places
  /// are drawn anew in every epoch, as the method's authors do it.
  void add_factorisation() {
    double best = -1;
    Result result;
    const std::span<const Preference> rated(preferences_.data(), rated_);
    for (const size_t factors : {4, 16}) {
      for (const double decay : {0.01, 0.05}) {
        for (const bool with_rated : {true, false}) {
          BprModel model(survey_.guests.size(), survey_.places.size(),
                         {.factors = factors, .decay = decay, .seed = options_.split.seed});
          const auto score = [&](size_t g, size_t p) { return model.score(g, p); };
          double own_best = -1;
          for (uint64_t epoch = 1; epoch <= 100; ++epoch) {
            auto pairs = unrated_pairs(split_.train, survey_.places.size(),
                                       std::max<size_t>(1, options_.unrated), epoch);
            if (with_rated) pairs.insert(pairs.end(), rated.begin(), rated.end());
            (void)model.epoch(pairs);
            if (epoch % 5 != 0) continue;
            const double ndcg = mean_ndcg(standings(
                split_.validation.size(), by_place_and_guest(split_.validation, score)));
            own_best = std::max(own_best, ndcg);
            if (ndcg <= best) continue;
            best = ndcg;
            result = {temper::concat("BPR matrix factorisation (", factors, " factors, decay ", decay,
                                     with_rated ? ", with rated pairs, " : ", ", epoch, " epochs)"),
                      standings(split_.test.size(), by_place_and_guest(split_.test, score))};
          }
          note(temper::concat("BPR, ", factors, " factors, decay ", decay,
                              with_rated ? ", with rated pairs" : ""),
               own_best);
        }
      }
    }
    results_.push_back(std::move(result));
  }

  const SurveyTokens& tokenized() {
    if (tokens_.cards.empty()) {
      const temper::ModelSource source = temper::open_model(options_.model);
      tokens_ = tokenize(survey_, temper::ModelText(source));
    }
    return tokens_;
  }

  void add_untrained(temper::CausalLM& lm) {
    const temper::AdapterOff off(lm);
    base_validation_ = scores(lm, options_.model, split_.validation, "validation", "untrained");
    base_test_ = scores(lm, options_.model, split_.test, "test", "untrained");
    const Rule rule = choose("untrained", base_validation_, {Rule::kSum, Rule::kMean});
    add(std::string("the untrained model by ") + rule_name(rule),
        [&](size_t i) { return ranked_by(rule, base_test_[i], base_test_[i]); });
  }

  /// From the folder, or computed and kept there.
  TrialScores scores(temper::CausalLM& lm, const std::string& settings,
                     const std::vector<Trial>& trials, const char* part, const std::string& who) {
    const std::string file = options_.output + "/" + who + "-" + part + ".json";
    if (auto saved = load_scores(file, settings, trials)) return *saved;
    std::printf("asking %s (%s)\n", who.c_str(), part);
    std::fflush(stdout);
    TrialScores out = score_trials(lm, tokens_, trials);
    save_scores(file, settings, trials, out);
    return out;
  }

  Rule choose(const std::string& name, const TrialScores& scores, const std::vector<Rule>& rules) {
    Rule best = rules.front();
    double highest = -1;
    for (const Rule rule : rules) {
      const double ndcg = mean_ndcg(standings(scores.size(), [&](size_t i) {
        return ranked_by(rule, scores[i], base_validation_[i]);
      }));
      note(name + ", " + rule_name(rule), ndcg);
      if (ndcg > highest) best = rule;
      highest = std::max(highest, ndcg);
    }
    return best;
  }

  /// Three places that a guest has not rated, in words.
  void recommend(temper::CausalLM& lm, Rule rule) const {
    Trial trial = split_.test.front();
    for (const Trial& t : split_.test) {
      if (survey_.guests[t.guest].id == options_.guest) trial = t;
    }
    const Guest& guest = survey_.guests[trial.guest];
    const std::vector<Trial> one{trial};
    const auto policy = score_trials(lm, tokens_, one);
    const temper::AdapterOff off(lm);
    const auto scores = ranked_by(rule, policy[0], score_trials(lm, tokens_, one)[0]);
    std::vector<size_t> order(scores.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    std::printf("\nFor guest %s:\n", guest.id.c_str());
    for (size_t n = 0; n < std::min<size_t>(3, order.size()); ++n) {
      const Place& place = survey_.places[trial.places[order[n]]];
      std::string why;
      for (const std::string& r : reasons(guest, place)) why += (why.empty() ? ": " : ", ") + r;
      std::printf("  %zu. %s%s.%s\n", n + 1, place.name.c_str(), why.c_str(),
                  order[n] == 0 ? " (Liked, and held out.)" : "");
    }
    std::printf("\n");
  }

  /// NDCG@10 of one less another's, trial by trial.
  [[nodiscard]] Estimate difference(const Result& a, const Result& b) const {
    std::vector<double> out;
    for (size_t i = 0; i < a.test.size(); ++i) out.push_back(a.test[i].ndcg(10) - b.test[i].ndcg(10));
    return bootstrap(out, options_.split.seed);
  }

  [[nodiscard]] const Result& best(size_t begin, size_t end) const {
    const auto at = [&](size_t i) { return results_.begin() + static_cast<std::ptrdiff_t>(i); };
    return *std::max_element(at(begin), at(end), [](const Result& a, const Result& b) {
      return mean_ndcg(a.test) < mean_ndcg(b.test);
    });
  }
  [[nodiscard]] const Result& best_tuned() const { return best(kTuned, results_.size()); }

  [[nodiscard]] std::string verdict() const {
    const Result &model = best_tuned(), &baseline = best(0, kTuned - 1);
    const Estimate e = difference(model, baseline);
    const char* outcome = e.low > 0 ? "beats" : e.high < 0 ? "loses to" : "is not told apart from";
    char numbers[80];
    std::snprintf(numbers, sizeof numbers, ": %+.3f [%+.3f, %+.3f].", e.mean, e.low, e.high);
    return "By NDCG@10 the best tuned model (" + model.name + ") " + outcome +
           " the best baseline (" + baseline.name + ")" + numbers;
  }

  /// In `results_`: four baselines, the untrained model, then the tuned ones.
  static constexpr size_t kTuned = 5;
  const Options& options_;
  const Survey& survey_;
  Split split_;
  std::vector<Preference> preferences_;
  size_t rated_ = 0;
  SurveyTokens tokens_;
  TrialScores base_validation_, base_test_;
  std::vector<Result> results_;
  std::string tried_;
};

}  // namespace
}  // namespace restaurant

int main(int argc, char** argv) {
  CLI::App app("Recommends restaurants by a language model trained on who liked which.");
  restaurant::Options o;
  app.add_option("--data", o.data, "Folder with the tables of the UCI restaurant and consumer data")
      ->required();
  app.add_option("--model", o.model, "GGUF file, Hugging Face folder or hub id")->capture_default_str();
  app.add_option("--method", o.methods, "What to train by")
      ->check(CLI::IsMember({"dpo", "simpo"}))
      ->capture_default_str();
  app.add_option("--guest", o.guest, "Whom to recommend something to; empty: the first tested one");
  app.add_option("--output", o.output, "Folder for adapters and scores; what is in it is used again")
      ->capture_default_str();
  app.add_option("--steps", o.train.steps, "Optimizer steps")->capture_default_str();
  app.add_option("--pairs", o.train.pairs_per_step, "Pairs a step")->capture_default_str();
  app.add_option("--rank", o.train.rank, "Of the adapter")->capture_default_str();
  app.add_option("--learning-rate", o.train.learning_rate, "Peak")->capture_default_str();
  app.add_option("--unrated", o.unrated, "Unrated places that each liked one is compared with in training")
      ->capture_default_str();
  app.add_option("--rivals", o.split.rivals, "Unrated places in a trial; 0: all")->capture_default_str();
  app.add_option("--seed", o.split.seed, "Of all draws")->capture_default_str();
  app.add_flag_callback(
      "--quick", [&] { o.train.steps = 2; o.train.pairs_per_step = 2; o.train.rank = 2; },
      "Two small steps, to see that it works");
  CLI11_PARSE(app, argc, argv);
  o.train.seed = o.split.seed;
  try {
    const restaurant::Survey survey = restaurant::read_survey(o.data);
    restaurant::Contest contest(o, survey);
    contest.describe();
    contest.add_baselines();
    contest.add_language_models();
    contest.print();
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
