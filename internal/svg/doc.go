// Package svg draws plain charts: stacked bars, one below the other, and lines over time. A chart is text of a few
// kilobytes that every browser shows, on light and on dark ground; a screen reader reads its title, its description
// and each bar's numbers.
//
// What it deliberately does not do: it decides nothing about what is drawn. Nothing moves, and nothing is loaded.
package svg
