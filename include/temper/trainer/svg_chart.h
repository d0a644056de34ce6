#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace temper {

/// Text as it stands inside HTML or SVG, attributes included: & < > " ' are replaced, control
/// characters other than tab and line feed become U+FFFD.
[[nodiscard]] std::string html_escape(std::string_view text);

/// A number for people, at most about 7 characters: 0, 0.732, 12.5k, 3.1e-06.
[[nodiscard]] std::string short_number(double value);

/// Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high], 2 to about
/// `about` + 2 of them. Equal or unordered bounds are widened.
[[nodiscard]] std::vector<double> nice_ticks(double low, double high, int about);

struct ChartPoint {
  double x = 0;
  double y = 0;  ///< A value that is not finite breaks the line.
  std::optional<std::pair<double, double>> interval = std::nullopt;  ///< Drawn as a bar.
};

struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;  ///< By rising x.
};

/// A vertical line with a text that shows under the pointer.
struct ChartMark {
  double x = 0;
  std::string text;
};

struct Chart {
  std::string x_name = "step";
  std::vector<ChartSeries> series;
  std::vector<ChartMark> marks;
  bool show_points = false;  ///< Draw every point; otherwise points show under the pointer only.
  bool from_zero = false;    ///< The y axis includes 0.
};

/// The chart as one <svg> element without scripts; colours come from the CSS variables --s0 to
/// --s5,
/// --grid, --muted and --warn of the page. Long series are averaged into at most 160 points; a
/// single long series gets a smoothed line over the plain one. Points carry <title> texts.
/// Deterministic. Values beyond 1e30 count as not finite.
[[nodiscard]] std::string svg_chart(const Chart& chart);

/// One part of a whole.
struct Share {
  std::string name;
  double amount = 0;  ///< At least 0.
};

/// A horizontal bar of the parts, coloured as series are.
[[nodiscard]] std::string svg_shares(const std::vector<Share>& shares);

/// Number of different series colours; the next series begins again at the first.
inline constexpr int kSeriesColors = 6;

}  // namespace temper
