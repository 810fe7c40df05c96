package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	chartWidth  = 800 * vg.Inch / 96 // as many pixels
	chartHeight = 330 * vg.Inch / 96
	barHeight   = 26 * vg.Inch / 96
)

// colors are those of contestants that are in several charts.
var colors = map[string]color.Color{
	programPeerlimit:         color.RGBA{R: 31, G: 119, B: 180, A: 255},
	"Gubernator BATCHING":    color.RGBA{R: 44, G: 160, B: 44, A: 255},
	"Gubernator NO_BATCHING": color.RGBA{R: 255, G: 127, B: 14, A: 255},
	"Gubernator GLOBAL":      color.RGBA{R: 148, G: 103, B: 189, A: 255},
	programRedis:             color.RGBA{R: 214, G: 39, B: 40, A: 255},
	programPingPong:          color.RGBA{R: 127, G: 127, B: 127, A: 255},
}

// chart is drawn from the lines of a table that it wants. Scales are logarithmic, where
// contestants differ by orders of magnitude.
type chart struct {
	file, says, axis string
	table            string
	wants            func(line) bool
	quantity         func(*measurement) float64
	bars             bool // one for each line, with its contestant's name; otherwise curves over callers
	linear           bool // bars from zero
}

var (
	localChart = chart{
		file: "local.svg", says: "Time of a local decision", axis: "nanoseconds per decision", table: tableLocal, quantity: perTake, bars: true,
		wants: func(l line) bool { return l.place != placeOne },
	}
	remoteChart = chart{
		file: "remote.svg", says: "Remote decisions a second by callers", axis: "takes a second", table: tableRemote, quantity: perSecond,
		wants: func(l line) bool { return l.place == placeThree || l.place == placeServer },
	}
	latencyChart = chart{
		file: "remote-p99.svg", says: "99th percentile of a remote decision by callers", axis: "p99, microseconds", table: tableRemote,
		quantity: func(m *measurement) float64 { return p99(m) / 1e3 },
		wants:    func(l line) bool { return l.place == placeThree || l.place == placeServer },
	}
	hotChart = chart{
		file: "hot.svg", says: "Takes a second of one hot key, 256 callers, limit in the way", axis: "takes a second", table: tableHot, quantity: perSecond, bars: true,
		wants: func(l line) bool { return l.callers == 256 && l.variant == variantInWay },
	}
	memoryChart = chart{
		file: "memory.svg", says: "Bytes per key beyond the key itself", axis: "bytes per key", table: tableMemory, quantity: heapBytes, bars: true, linear: true,
		wants: func(l line) bool { return l.place != placeThree },
	}
)

// drawCharts draws those whose table was measured.
func drawCharts(r *results, dir string) error {
	for _, s := range sections {
		for _, c := range s.charts {
			var lines []line
			for _, l := range inOrder(r.lines(c.table)) {
				if c.wants(l) {
					lines = append(lines, l)
				}
			}
			if len(lines) == 0 {
				continue
			}
			if err := c.draw(r, lines, filepath.Join(dir, c.file)); err != nil {
				return fmt.Errorf("%s: %w", c.file, err)
			}
		}
	}
	return nil
}

func (c *chart) draw(r *results, lines []line, file string) error {
	p := plot.New()
	p.Title.Text, p.Title.Padding = c.says, vg.Points(6)
	height := chartHeight
	var err error
	if c.bars {
		height = barHeight*vg.Length(len(lines)) + 2.5*barHeight
		err = c.addBars(p, r, lines)
	} else {
		err = c.addCurves(p, r, lines)
	}
	if err != nil {
		return err
	}
	canvas := vgsvg.New(chartWidth, height)
	all := draw.New(canvas)
	p.Draw(draw.Crop(all, 4, -14, 4, -4))
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// scale says how long a bar is. The plotter has bars begin at zero, so it is given logarithms.
type scale struct {
	linear bool
	floor  float64 // the logarithm with which bars begin
}

func (s scale) length(value float64) float64 {
	if s.linear {
		return value
	}
	return max(0, math.Log10(max(value, 1))-s.floor)
}

// Ticks says where the axis has marks.
func (s scale) Ticks(least, most float64) (ticks []plot.Tick) {
	if s.linear {
		return plot.DefaultTicks{}.Ticks(least, most)
	}
	for decade := 0.0; decade <= most; decade++ {
		ticks = append(ticks, plot.Tick{Value: decade, Label: grouped(int64(math.Pow10(int(s.floor + decade))))})
	}
	return ticks
}

// addBars draws one bar for each line, the first one on top.
func (c *chart) addBars(p *plot.Plot, r *results, lines []line) error {
	scale, values := scale{linear: c.linear, floor: math.Inf(1)}, make([]float64, len(lines))
	for i, l := range lines {
		values[i] = r.figure(l, c.quantity).median
		scale.floor = min(scale.floor, math.Floor(math.Log10(max(values[i], 1))-0.1))
	}
	names, labels := make([]string, len(lines)), plotter.XYLabels{}
	for i, l := range lines {
		at, length := len(lines)-1-i, scale.length(values[i])
		bar, err := plotter.NewBarChart(plotter.Values{length}, 0.6*barHeight)
		if err != nil {
			return err
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width = true, float64(at), 0
		bar.Color = color.RGBA{R: 170, G: 170, B: 170, A: 255}
		if known := colors[l.contestant]; known != nil {
			bar.Color = known
		}
		p.Add(bar)
		names[at] = l.contestant
		labels.XYs = append(labels.XYs, plotter.XY{X: length, Y: float64(at) - 0.15})
		labels.Labels = append(labels.Labels, digits(values[i]))
		p.X.Max = max(p.X.Max, length)
	}
	numbers, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	numbers.Offset.X = vg.Points(4)
	p.Add(numbers)
	p.NominalY(names...)
	p.X.Label.Text, p.X.Min, p.X.Max, p.X.Tick.Marker = c.axis, 0, p.X.Max*1.2, scale
	return nil
}

// addCurves draws one curve for each contestant, with the least and the most of the rounds.
func (c *chart) addCurves(p *plot.Plot, r *results, lines []line) error {
	var contestants []string
	points := make(map[string]*curve)
	for _, l := range lines {
		if points[l.contestant] == nil {
			points[l.contestant] = &curve{}
			contestants = append(contestants, l.contestant)
		}
		f := r.figure(l, c.quantity)
		of := points[l.contestant]
		of.XYs = append(of.XYs, plotter.XY{X: float64(l.callers), Y: f.median})
		of.YErrors = append(of.YErrors, struct{ Low, High float64 }{f.median - f.least, f.most - f.median})
	}
	for _, name := range contestants {
		with, dots, err := plotter.NewLinePoints(points[name].XYs)
		if err != nil {
			return err
		}
		spread, err := plotter.NewYErrorBars(points[name])
		if err != nil {
			return err
		}
		with.Color, dots.Color, spread.Color = colors[name], colors[name], colors[name]
		with.Width, dots.Shape = vg.Points(1.6), draw.CircleGlyph{}
		p.Add(with, dots, spread)
		p.Legend.Add(name, with, dots)
	}
	p.X.Label.Text, p.Y.Label.Text = "callers", c.axis
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker = plot.ConstantTicks{{Value: 1, Label: "1"}, {Value: 16, Label: "16"}, {Value: 256, Label: "256"}, {Value: 1024, Label: "1,024"}}
	p.Y.Tick.Marker = plot.TickerFunc(func(least, most float64) (ticks []plot.Tick) {
		for _, tick := range (plot.LogTicks{Prec: -1}).Ticks(least, most) {
			if tick.Label != "" {
				tick.Label = grouped(int64(tick.Value))
			}
			ticks = append(ticks, tick)
		}
		return ticks
	})
	p.X.Min, p.X.Max = 0.8, 1500
	p.Legend.Left, p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = true, true, 6, -6
	p.Legend.Padding, p.Legend.TextStyle.Font.Size = 1.5, vg.Points(9)
	p.Y.Max *= 30 // room for the legend
	return nil
}

// curve has points and how far rounds were away from them.
type curve struct {
	plotter.XYs
	plotter.YErrors
}
