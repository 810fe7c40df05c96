package main

import (
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/peerlimit/peerlimit/chaos"
)

const (
	chartWidth  = 800 * vg.Inch / 96 // as many pixels
	panelHeight = 250 * vg.Inch / 96

	// point is how much time one point of a curve stands for: long enough that a steady rate looks steady.
	point = 500 // ms

	// maxNumbered is how many events have a number. Of more, only the lines are drawn.
	maxNumbered = 14
)

var (
	blue   = color.RGBA{R: 31, G: 119, B: 180, A: 255}
	grey   = color.RGBA{R: 170, G: 170, B: 170, A: 255}
	red    = color.RGBA{R: 214, G: 39, B: 40, A: 255}
	orange = color.RGBA{R: 200, G: 120, B: 0, A: 255}
)

// drawChart writes a chart of a scenario: for each program, what was admitted of the saturated key and what its limit lets flow in.
func drawChart(s scenario, file string) error {
	var panels []*plot.Plot
	for i := range s.results {
		p, err := panel(&s.results[i])
		if err != nil {
			return err
		}
		panels = append(panels, p)
	}
	canvas := vgsvg.New(chartWidth, panelHeight*vg.Length(len(panels)))
	tiles := panes(canvas, len(panels))
	for i, p := range panels {
		p.Draw(tiles[i])
	}
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

// panes divides a canvas into panels, one above the other.
func panes(canvas vg.CanvasSizer, panels int) (tiles []draw.Canvas) {
	all := draw.New(canvas)
	height := (all.Max.Y - all.Min.Y) / vg.Length(panels)
	for i := range panels {
		top := all.Max.Y - height*vg.Length(i)
		tiles = append(tiles, draw.Canvas{Canvas: canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: all.Min.X + 4, Y: top - height + 4}, Max: vg.Point{X: all.Max.X - 14, Y: top - 4},
		}})
	}
	return tiles
}

func panel(r *chaos.Result) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s: %s", r.Scenario, r.Program)
	p.X.Label.Text = "seconds"
	p.Y.Label.Text = "takes a second"
	p.X.Min, p.X.Max, p.Y.Min = 0, r.Seconds, 0
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs, p.Legend.Padding = true, true, 6, 1 // whatever font the reader has, nothing overlaps
	p.Legend.TextStyle.Font.Size = vg.Points(9)
	k := keys(r, "saturated")
	if k == nil {
		return nil, fmt.Errorf("%s has no saturated key", r.Program)
	}
	offered, err := curve(k.Offered, k.SampleMS, grey)
	if err != nil {
		return nil, err
	}
	served, err := curve(k.Served, k.SampleMS, blue)
	if err != nil {
		return nil, err
	}
	served.Width = vg.Points(1.6)
	limit, err := plotter.NewLine(plotter.XYs{{X: 0, Y: k.Rate}, {X: r.Seconds, Y: k.Rate}})
	if err != nil {
		return nil, err
	}
	limit.Color, limit.Dashes = red, []vg.Length{vg.Points(5), vg.Points(3)}
	p.Add(offered, limit, served)
	p.Legend.Add("asked for", offered)
	p.Legend.Add("admitted", served)
	p.Legend.Add("the limit's rate", limit)
	p.Y.Max = 1.8 * max(offered.highest(), served.highest(), k.Rate)
	return p, mark(p, r.Events)
}

// rates is a curve of takes a second.
type rates struct {
	*plotter.Line
	points plotter.XYs
}

func (r rates) highest() (most float64) {
	for _, p := range r.points {
		most = max(most, p.Y)
	}
	return most
}

func curve(samples []int, sampleMS int, c color.Color) (rates, error) {
	size := max(1, point/sampleMS)
	var points plotter.XYs
	for from := 0; from+size <= len(samples); from += size {
		sum := 0
		for _, n := range samples[from : from+size] {
			sum += n
		}
		seconds := float64(size*sampleMS) / 1000
		points = append(points, plotter.XY{X: (float64(from)*float64(sampleMS))/1000 + seconds/2, Y: float64(sum) / seconds})
	}
	if len(points) == 0 {
		return rates{}, fmt.Errorf("%d samples of %d ms are too few for a curve", len(samples), sampleMS)
	}
	line, err := plotter.NewLine(points)
	if err != nil {
		return rates{}, err
	}
	line.Color = c
	return rates{line, points}, nil
}

// mark draws a line for each event, with its number unless they are too many.
func mark(p *plot.Plot, events []chaos.Event) error {
	var labels plotter.XYLabels
	for i, e := range events {
		x := e.AtMS / 1000
		line, err := plotter.NewLine(plotter.XYs{{X: x, Y: 0}, {X: x, Y: p.Y.Max * 0.93}})
		if err != nil {
			return err
		}
		line.Color, line.Dashes = orange, []vg.Length{vg.Points(1), vg.Points(2)}
		p.Add(line)
		if last := len(labels.XYs) - 1; last >= 0 && x-labels.XYs[last].X < 0.05*p.X.Max {
			labels.Labels[last] = fmt.Sprintf("%s,%d", labels.Labels[last], i+1) // beside each other they would overlap
			continue
		}
		labels.XYs = append(labels.XYs, plotter.XY{X: x, Y: p.Y.Max * 0.94})
		labels.Labels = append(labels.Labels, fmt.Sprint(i+1))
	}
	if len(events) == 0 || len(events) > maxNumbered {
		return nil
	}
	numbers, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	for i := range numbers.TextStyle {
		numbers.TextStyle[i].Color = orange
		numbers.TextStyle[i].XAlign = draw.XCenter
	}
	p.Add(numbers)
	return nil
}
