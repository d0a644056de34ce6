#include "temper/trainer/svg_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "temper/core/error.h"

namespace temper {
namespace {

// One unit is one CSS pixel on a phone and in a three-column page.
constexpr double kWidth = 360, kHeight = 190;
constexpr double kLeft = 46, kRight = 10, kTop = 12, kBottom = 24;
constexpr size_t kMostPoints = 160;
constexpr size_t kSmoothFrom = 24;  // shorter series are read better as they are
constexpr double kLargest = 1e30;

template <class... Args>
std::string formatted(const char* format, Args... args) {
  std::array<char, 256> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, args...);
  return buffer.data();
}

bool drawable(double v) { return std::isfinite(v) && std::abs(v) <= kLargest; }

/// Without the zeros and the point at the end that say nothing.
std::string trimmed(std::string text) {
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

/// A run of neighbouring points, drawn as one.
struct Bucket {
  double first_x, last_x, y, low, high;
  std::optional<std::pair<double, double>> interval;
  double x() const { return 0.5 * (first_x + last_x); }
  bool one() const { return first_x == last_x; }
};

/// At most `kMostPoints` buckets; a gap stays a bucket without a number.
std::vector<Bucket> buckets_of(const std::vector<ChartPoint>& points) {
  std::vector<Bucket> out;
  const size_t size = (points.size() + kMostPoints - 1) / kMostPoints;
  for (size_t begin = 0; begin < points.size(); begin += size) {
    const size_t end = std::min(points.size(), begin + size);
    Bucket b{points[begin].x, points[end - 1].x, std::nan(""), 0, 0, points[begin].interval};
    double sum = 0;
    int count = 0;
    for (size_t i = begin; i < end; ++i) {
      const double y = points[i].y;
      if (!drawable(y)) continue;
      b.low = count == 0 ? y : std::min(b.low, y);
      b.high = count == 0 ? y : std::max(b.high, y);
      sum += y;
      ++count;
    }
    if (count > 0) b.y = sum / count;
    out.push_back(b);
  }
  return out;
}

/// Maps data to the drawing.
struct Frame {
  double x0, x1, y0, y1;
  double px(double x) const { return kLeft + (x - x0) / (x1 - x0) * (kWidth - kLeft - kRight); }
  double py(double y) const {
    return kHeight - kBottom - (y - y0) / (y1 - y0) * (kHeight - kTop - kBottom);
  }
};

std::string path_of(const std::vector<std::pair<double, double>>& line, const Frame& f) {
  std::string d;
  bool pen_down = false;
  for (const auto& [x, y] : line) {
    if (drawable(y)) d += formatted("%c%.1f %.1f", pen_down ? 'L' : 'M', f.px(x), f.py(y));
    pen_down = drawable(y);
  }
  return d;
}

/// Weighted mean of the neighbours up to a thirtieth of the line away, as many on each side, so
/// that it neither lags behind the values nor bends at the ends.
std::vector<std::pair<double, double>> smoothed(const std::vector<Bucket>& buckets) {
  const auto size = static_cast<int64_t>(buckets.size());
  const int64_t widest = std::max<int64_t>(2, size / 30);
  std::vector<std::pair<double, double>> line;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t reach = std::min({widest, i, size - 1 - i});
    double sum = 0, weight = 0;
    for (int64_t j = i - reach; j <= i + reach; ++j) {
      const double y = buckets[static_cast<size_t>(j)].y;
      if (!drawable(y)) continue;
      const auto w = static_cast<double>(reach + 1 - std::abs(i - j));
      sum += w * y;
      weight += w;
    }
    if (weight > 0) line.emplace_back(buckets[static_cast<size_t>(i)].x(), sum / weight);
  }
  return line;
}

/// The plain line; under a smoothed one it shows how far the values of a bucket reach.
std::vector<std::pair<double, double>> plain_line(const std::vector<Bucket>& buckets, bool reach) {
  std::vector<std::pair<double, double>> line;
  for (const Bucket& b : buckets) {
    if (reach && !b.one() && drawable(b.y)) {
      line.emplace_back(b.x(), b.low);
      line.emplace_back(b.x(), b.high);
    } else {
      line.emplace_back(b.x(), b.y);
    }
  }
  return line;
}

/// Steps are read off exactly.
std::string x_text(double x) {
  return x == std::floor(x) && std::abs(x) < 1e15 ? formatted("%.0f", x) : short_number(x);
}

std::string point_title(const Chart& chart, const ChartSeries& series, const Bucket& b) {
  std::string text = chart.x_name + " " + x_text(b.first_x);
  if (!b.one()) text += " to " + x_text(b.last_x);
  text += ", " + series.name + ": " + short_number(b.y);
  if (!b.one()) text += " (" + short_number(b.low) + " to " + short_number(b.high) + ")";
  if (b.interval) {
    text += ", 95 % interval " + short_number(b.interval->first) + " to " +
            short_number(b.interval->second);
  }
  return html_escape(text);
}

std::string draw_series(const Chart& chart, size_t index, const Frame& f) {
  const ChartSeries& series = chart.series[index];
  const auto buckets = buckets_of(series.points);
  const bool smooth = chart.series.size() == 1 && series.points.size() >= kSmoothFrom;
  std::string out = formatted("<g class=\"s%d\">", static_cast<int>(index % kSeriesColors));
  out += concat("<path class=\"", smooth ? "raw" : "line", "\" d=\"",
                path_of(plain_line(buckets, smooth), f), "\"/>");
  if (smooth) out += concat("<path class=\"line\" d=\"", path_of(smoothed(buckets), f), "\"/>");
  for (const Bucket& b : buckets) {
    if (!drawable(b.y)) continue;
    const double x = f.px(b.x());
    if (b.interval) {
      out += formatted("<path class=\"bar\" d=\"M%.1f %.1fV%.1fM%.1f %.1fh8M%.1f %.1fh8\"/>", x,
                       f.py(b.interval->first), f.py(b.interval->second), x - 4,
                       f.py(b.interval->first), x - 4, f.py(b.interval->second));
    }
    const bool shown = chart.show_points || buckets.size() == 1;
    out += formatted("<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>",
                     shown ? "dot" : "hit", x, f.py(b.y), shown ? "3.5" : "5");
    out += point_title(chart, series, b) + "</title></circle>";
  }
  return out + "</g>";
}

/// The smallest frame of round numbers around all that is drawn; nothing if there is no number.
std::optional<Frame> frame_of(const Chart& chart) {
  std::optional<Frame> f;
  const auto take = [&](double x, double y) {
    if (!drawable(y) || !drawable(x)) return;
    if (!f) f = Frame{x, x, y, y};
    *f = {std::min(f->x0, x), std::max(f->x1, x), std::min(f->y0, y), std::max(f->y1, y)};
  };
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& p : series.points) {
      take(p.x, p.y);
      if (p.interval) take(p.x, p.interval->first);
      if (p.interval) take(p.x, p.interval->second);
    }
  }
  if (f && chart.from_zero) f->y0 = std::min(f->y0, 0.0);
  if (f && chart.from_zero) f->y1 = std::max(f->y1, 0.0);
  if (f && f->x1 <= f->x0) *f = {f->x0 - 1, f->x0 + 1, f->y0, f->y1};
  return f;
}

std::string draw_axes(const Chart& chart, Frame& f) {
  std::string out;
  const auto ticks = nice_ticks(f.y0, f.y1, 5);
  f.y0 = ticks.front();
  f.y1 = ticks.back();
  for (const double y : ticks) {
    out +=
        formatted("<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", kLeft, f.py(y), kWidth - kRight);
    out += formatted("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", kLeft - 6,
                     f.py(y) + 4, short_number(y).c_str());
  }
  double last_label = -1e9;
  for (const double x : nice_ticks(f.x0, f.x1, 5)) {
    if (x < f.x0 || x > f.x1 || x != std::floor(x)) continue;
    // Room for the axis name at the right.
    if (f.px(x) - last_label < 36 || f.px(x) > kWidth - 50) continue;
    last_label = f.px(x);
    out += formatted("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>", last_label,
                     kHeight - 6, short_number(x).c_str());
  }
  out +=
      formatted("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", kWidth - kRight, kHeight - 6);
  return out + html_escape(chart.x_name) + "</text>";
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool control = (byte < 0x20 && c != '\t' && c != '\n') || byte == 0x7F;
        if (control) {
          out += "\xEF\xBF\xBD";
        } else {
          out += c;
        }
      }
    }
  }
  return out;
}

std::string short_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  const double size = std::abs(value);
  if (size == 0) return "0";
  if (size < 1e-3 || size >= 1e13) return formatted("%.2g", value);
  if (size < 1e4 && value == std::floor(value)) return formatted("%.0f", value);
  if (size < 10) return trimmed(formatted("%.3f", value));
  if (size < 1e4) return trimmed(formatted("%.1f", value));
  if (size < 1e6) return trimmed(formatted("%.1f", value / 1e3)) + "k";
  if (size < 1e9) return trimmed(formatted("%.2f", value / 1e6)) + "M";
  return trimmed(formatted("%.2f", value / 1e9)) + "G";
}

std::vector<double> nice_ticks(double low, double high, int about) {
  if (!(high > low)) {
    const double room = 0.1 * std::abs(low);
    low -= room;
    high = room == 0 ? 1 : low + 2 * room;
  }
  const double rough = (high - low) / std::max(1, about);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough * (1 - 1e-9)) step = factor * power;
  }
  // Counting from a whole multiple keeps 0.3 from becoming 0.30000000000000004.
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9);
  for (int i = 0; i < 2 * about + 4; ++i) {
    ticks.push_back((first + i) * step);
    if (ticks.back() >= high - 1e-9 * step) break;
  }
  return ticks;
}

std::string svg_chart(const Chart& chart) {
  std::string out = formatted("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\">", kWidth, kHeight);
  auto frame = frame_of(chart);
  if (!frame)
    return out + "<text x=\"180\" y=\"95\" text-anchor=\"middle\">no numbers</text></svg>";
  out += draw_axes(chart, *frame);
  for (const ChartMark& mark : chart.marks) {
    if (mark.x < frame->x0 || mark.x > frame->x1) continue;
    out += formatted("<path class=\"mark\" d=\"M%.1f %.1fV%.1f\"><title>", frame->px(mark.x), kTop,
                     kHeight - kBottom);
    out += html_escape(mark.text) + "</title></path>";
  }
  for (size_t i = 0; i < chart.series.size(); ++i) out += draw_series(chart, i, *frame);
  return out + "</svg>";
}

std::string svg_shares(const std::vector<Share>& shares) {
  double total = 0;
  for (const Share& share : shares) total += share.amount;
  std::string out =
      "<svg class=\"shares\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" role=\"img\">";
  double x = 0;
  for (size_t i = 0; i < shares.size() && total > 0; ++i) {
    const double width = 100 * shares[i].amount / total;
    out +=
        formatted("<g class=\"s%d\"><rect x=\"%.2f\" y=\"0\" width=\"%.2f\" height=\"6\"><title>",
                  static_cast<int>(i % kSeriesColors), x, width);
    out += html_escape(concat(shares[i].name, ": ", formatted("%.1f %%", width)));
    out += "</title></rect></g>";
    x += width;
  }
  return out + "</svg>";
}

}  // namespace temper
