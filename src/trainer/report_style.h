#pragma once

#include <string_view>

namespace temper {

/// The style sheet of report.html: light and dark by the reader's system, one column on a phone.
inline constexpr std::string_view kReportStyle = R"css(
:root { color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1d1f23; --muted: #6a6f78; --edge: #e3e3df;
  --grid: #ececea; --warn: #b4531a; --warn-back: #fdf3ea;
  --s0: #2f6fb7; --s1: #c9622b; --s2: #3d8f5f; --s3: #8a5bb5; --s4: #b3892b; --s5: #b8476b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181b; --card: #1e2125; --ink: #e6e7e9; --muted: #979da7; --edge: #2d3137;
  --grid: #2a2e33; --warn: #eda66c; --warn-back: #2d241c;
  --s0: #74a9e6; --s1: #e8935f; --s2: #74c093; --s3: #b893df; --s4: #d9b35c; --s5: #e2839f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 18px 60px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; font-weight: 650; }
h2 { font-size: 17px; margin: 40px 0 12px; font-weight: 650; }
h3 { font-size: 14px; margin: 0; font-weight: 600; }
p { margin: 0; }
.sub, .note { color: var(--muted); }
.sub { margin-top: 6px; }
.note { font-size: 12.5px; line-height: 1.4; margin-top: 2px; min-height: 2.8em; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px;
  margin-top: 22px; }
.tile, .card { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; }
.tile { padding: 12px 14px; }
.tile .label { color: var(--muted); font-size: 12.5px; }
.tile .value { font-size: 20px; white-space: nowrap; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile .more { color: var(--muted); font-size: 12.5px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr));
  gap: 14px; }
.card { padding: 13px 14px 10px; min-width: 0; }
.charts .card { display: flex; flex-direction: column; }
.charts .card svg { margin-top: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; margin: 4px 0 2px; }
.legend span::before { content: ""; display: inline-block; width: 10px; height: 10px;
  border-radius: 2px; margin-right: 5px; background: var(--c); }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); }
.s3 { --c: var(--s3); } .s4 { --c: var(--s4); } .s5 { --c: var(--s5); }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; }
svg text { fill: var(--muted); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--grid); fill: none; }
svg .line { stroke: var(--c); stroke-width: 1.8; fill: none; stroke-linejoin: round;
  stroke-linecap: round; }
svg .raw { stroke: var(--c); stroke-width: 1; fill: none; opacity: .42; }
svg .bar { stroke: var(--c); stroke-width: 1.4; fill: none; opacity: .75; }
svg .dot { fill: var(--c); }
svg .hit { fill: transparent; }
svg .hit:hover { fill: var(--c); }
svg .mark { stroke: var(--warn); stroke-width: 1.4; stroke-dasharray: 3 3; fill: none; }
svg rect { fill: var(--c); }
svg.shares { height: 26px; border-radius: 5px; margin: 8px 0 6px; }
.alarms { display: grid; gap: 8px; }
.alarm { background: var(--warn-back); border-left: 3px solid var(--warn); padding: 9px 13px;
  border-radius: 0 6px 6px 0; overflow-wrap: anywhere; }
.alarm.remark { background: var(--card); border-left-color: var(--edge); }
.alarm b { font-weight: 600; margin-right: 6px; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr));
  gap: 14px; align-items: start; }
.samples > div { display: grid; gap: 12px; min-width: 0; }
.chips { display: flex; flex-wrap: wrap; gap: 6px; font-size: 12.5px; margin-bottom: 8px; }
.chips span { border: 1px solid var(--edge); border-radius: 999px; padding: 0 9px;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
pre { margin: 3px 0 9px; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 300px;
  overflow-y: auto; font: 12.5px/1.45 ui-monospace, Menlo, Consolas, monospace; }
pre.prompt { color: var(--muted); border-left: 2px solid var(--edge); padding-left: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
td { padding: 4px 10px 4px 0; border-top: 1px solid var(--grid); vertical-align: top;
  overflow-wrap: anywhere; }
td:first-child { color: var(--muted); width: 40%; }
tr:first-child td { border-top: 0; }
summary { cursor: pointer; font-weight: 600; }
details > *:not(summary) { margin-top: 12px; }
footer { margin-top: 44px; color: var(--muted); font-size: 12.5px; }
)css";

}  // namespace temper
