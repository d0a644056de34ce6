#include "temper/trainer/svg_chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace temper {
namespace {

size_t count_of(const std::string& page, std::string_view text) {
  size_t count = 0;
  for (size_t at = page.find(text); at != std::string::npos; at = page.find(text, at + 1)) ++count;
  return count;
}

bool has(const std::string& page, std::string_view text) { return count_of(page, text) > 0; }

TEST(SvgChart, Escaping) {
  EXPECT_EQ(html_escape("a<b>&\"'\n\xC3\xA9"), "a&lt;b&gt;&amp;&quot;&#39;\n\xC3\xA9");
  EXPECT_EQ(html_escape(std::string_view("\0\x1b\x7f", 3)), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(SvgChart, ShortNumbers) {
  const std::vector<std::pair<double, const char*>> cases = {
      {0, "0"},         {-0.0, "0"},     {0.5, "0.5"},       {0.73219, "0.732"},
      {-2, "-2"},       {12.34, "12.3"}, {1234, "1234"},     {9999.5, "9999.5"},
      {12500, "12.5k"}, {1e6, "1M"},     {2.345e9, "2.35G"}, {3.1e-6, "3.1e-06"},
      {1e-10, "1e-10"}, {1e20, "1e+20"}, {0.0009, "0.0009"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(short_number(value), text);
  EXPECT_EQ(short_number(std::nan("")), "NaN");
  EXPECT_EQ(short_number(-std::numeric_limits<double>::infinity()), "-inf");
}

TEST(SvgChart, TicksAreRoundAndCover) {
  EXPECT_EQ(nice_ticks(0, 1, 4), (std::vector<double>{0, 0.5, 1}));
  EXPECT_EQ(nice_ticks(0, 100, 4), (std::vector<double>{0, 50, 100}));
  EXPECT_EQ(nice_ticks(0.1, 0.35, 4), (std::vector<double>{0.1, 0.2, 0.30000000000000004, 0.4}));
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {-3.7, 12.1}, {1e-9, 2e-9}, {-1e30, 1e30}, {5, 5}, {0, 0}, {-2, -2}, {2, 1}}) {
    const auto ticks = nice_ticks(low, high, 4);
    ASSERT_GE(ticks.size(), 2u) << low;
    ASSERT_LE(ticks.size(), 12u) << low;
    const double slack = 1e-9 * (ticks[1] - ticks[0]);
    EXPECT_LE(ticks.front(), low + slack) << low;
    EXPECT_GE(ticks.back(), std::max(low, high) - slack) << low;
  }
}

Chart line_of(std::vector<double> values) {
  Chart chart;
  chart.series.push_back({"a & b", {}});
  for (size_t i = 0; i < values.size(); ++i) {
    chart.series[0].points.push_back({static_cast<double>(i + 1), values[i]});
  }
  return chart;
}

// The drawing is 360 x 190 with margins 46, 10, 12, 24: x 1..3 maps to 46..350, y 0..1 to 166..12.
TEST(SvgChart, LineByHand) {
  const std::string svg = svg_chart(line_of({0, 1, 0.5}));
  EXPECT_TRUE(has(svg, "d=\"M46.0 166.0L198.0 12.0L350.0 89.0\"")) << svg;
  EXPECT_TRUE(has(svg, "<title>step 2, a &amp; b: 1</title>"));
}

TEST(SvgChart, GapsBreakTheLine) {
  const std::string svg = svg_chart(line_of({0, 1, std::nan(""), 1, 1e300, 0}));
  EXPECT_EQ(count_of(svg, "class=\"hit\""), 4u);
  const size_t d = svg.find("class=\"line\" d=\"");
  const std::string path = svg.substr(d, svg.find('>', d) - d);
  EXPECT_EQ(count_of(path, "M"), 3u) << path;
}

TEST(SvgChart, LongSeriesAreAveragedAndSmoothed) {
  std::vector<double> values(100'000, 2.0);
  const std::string svg = svg_chart(line_of(values));
  EXPECT_EQ(count_of(svg, "<circle"), 160u);
  EXPECT_TRUE(has(svg, "<title>step 1 to 625, a &amp; b: 2 (2 to 2)</title>"));
  EXPECT_EQ(count_of(svg, "class=\"raw\""), 1u);
  EXPECT_LT(svg.size(), 60'000u);
}

// A straight line smoothed is the same straight line, ends included.
TEST(SvgChart, SmoothingKeepsAStraightLine) {
  std::vector<double> values;
  for (int i = 0; i <= 30; ++i) values.push_back(i);
  const std::string svg = svg_chart(line_of(values));
  const auto path = [&](const std::string& name) {
    const size_t begin = svg.find("class=\"" + name + "\"");
    return begin == std::string::npos ? name : svg.substr(svg.find("d=", begin), 400);
  };
  EXPECT_EQ(path("raw").substr(0, path("raw").find('>')),
            path("line").substr(0, path("line").find('>')));
}

TEST(SvgChart, NothingToDraw) {
  EXPECT_TRUE(has(svg_chart({}), "no numbers"));
  EXPECT_TRUE(has(svg_chart(line_of({std::nan(""), std::nan("")})), "no numbers"));
  EXPECT_TRUE(has(svg_chart(line_of({0.25})), "class=\"dot\""));
}

TEST(SvgChart, IntervalsAndMarks) {
  Chart chart = line_of({0.5, 0.6});
  chart.series[0].points[0].interval = std::pair(0.4, 0.7);
  chart.marks = {{1.5, "here <now>"}, {99, "outside"}};
  const std::string svg = svg_chart(chart);
  EXPECT_TRUE(has(svg, "95 % interval 0.4 to 0.7"));
  EXPECT_TRUE(has(svg, "<title>here &lt;now&gt;</title>"));
  EXPECT_FALSE(has(svg, "outside"));
}

// Numbers that overflow to infinity on the way must not reach the drawing.
TEST(SvgChart, HugeRangesStayFinite) {
  const std::string svg = svg_chart(line_of({-1e30, 1e30, 1e-300, 0}));
  EXPECT_FALSE(has(svg, "nan"));
  EXPECT_FALSE(has(svg, "inf"));
}

TEST(SvgChart, SharesByHand) {
  const std::string svg = svg_shares({{"a", 3}, {"b", 1}});
  EXPECT_TRUE(has(svg, "x=\"0.00\" y=\"0\" width=\"75.00\""));
  EXPECT_TRUE(has(svg, "x=\"75.00\" y=\"0\" width=\"25.00\""));
  EXPECT_TRUE(has(svg, "<title>a: 75.0 %</title>"));
  EXPECT_FALSE(has(svg_shares({{"a", 0}}), "rect"));
}

}  // namespace
}  // namespace temper
