package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// document is a part of docs/benchmarks.md and its curves: where they are written to, and the template of the part.
type document struct{ file, prose, charts string }

// write draws the curves, and writes the part when its file has a name.
func (d document) write(r *results) error {
	if err := drawCurves(r, d.charts); err != nil || d.file == "" {
		return err
	}
	prose, err := os.ReadFile(d.prose)
	if err != nil {
		return err
	}
	functions := template.FuncMap{
		"thousands": thousands, "took": took, "kilobytes": func(b float64) string { return fmt.Sprintf("%.1f kB", b/1000) },
		"count":     func(n int) string { return fmt.Sprintf("%d,%03d,%03d", n/1_000_000, n/1000%1000, n%1000) },
		"percent":   func(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) },
		"megabytes": func(n int) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) },
	}
	t, err := template.New("scale").Funcs(functions).Parse(string(prose))
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := t.Execute(&b, r); err != nil {
		return err
	}
	return os.WriteFile(d.file, []byte(b.String()), 0o644)
}

func drawCurves(r *results, charts string) error {
	if err := os.MkdirAll(charts, 0o755); err != nil {
		return err
	}
	var processes, idle, rings plotter.XYs
	for _, p := range r.Processes {
		processes = append(processes, plotter.XY{X: float64(p.Processes), Y: p.PerSecond / 1000})
		idle = append(idle, plotter.XY{X: float64(p.Processes), Y: 100 * p.IdleCore})
	}
	for _, x := range r.Rings {
		if x.Change > 0 {
			rings = append(rings, plotter.XY{X: float64(x.Members), Y: x.Change.Seconds() * 1000})
		}
	}
	return firstError(
		curve(filepath.Join(charts, "processes.svg"), "processes on one machine", "thousand decisions a second", processes, false),
		curve(filepath.Join(charts, "idle.svg"), "processes", "percent of a core that an idle node uses", idle, false),
		curve(filepath.Join(charts, "rings.svg"), "members", "milliseconds for a change of the ring", rings, true),
	)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// curve draws points, on logarithmic scales if wanted.
func curve(file, x, y string, points plotter.XYs, logarithmic bool) error {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.BackgroundColor = color.White
	if logarithmic {
		p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
		p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color = color.RGBA{R: 31, G: 119, B: 180, A: 255}
	dots.Color = line.Color
	p.Add(plotter.NewGrid(), line, dots)
	if !logarithmic {
		p.Y.Min = 0
	}
	return p.Save(560*vg.Inch/96, 260*vg.Inch/96, file)
}

// thousands writes a number in thousands.
func thousands(x float64) string { return fmt.Sprintf("%.0f,000", x/1000) }

// took writes a duration with two or three digits.
func took(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
}
