package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"time"
)

// page shows a run in a browser, and takes commands from there. It is an observer beside the terminal.
type page struct {
	demo   *demo
	server *http.Server
	url    string
	work   sync.WaitGroup // serving and sampling
	halt   chan struct{}  // closed by close

	mu      sync.Mutex // guards what follows
	points  []point    // the last historyLength
	last    counts     // at the last point
	events  []event    // the last eventCount
	verdict verdict    // the last one
}

const (
	pointInterval = 500 * time.Millisecond
	historyLength = 240
	eventCount    = 200

	// judgeShare bounds the part of the time in which the page judges: one tenth.
	judgeShare = 10
)

// point is what happened in one interval.
type point struct {
	at    time.Duration // its end
	took  time.Duration
	limit float64 // of all keys together, per second
	counts
}

//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load what this program has, and nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'"

// openPage begins to serve the page of a run that has not begun.
func openPage(d *demo, address string) (*page, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &page{demo: d, url: "http://" + listener.Addr().String(), halt: make(chan struct{})}
	p.server = &http.Server{Handler: p.routes(), ReadHeaderTimeout: 5 * time.Second}
	p.work.Go(func() { _ = p.server.Serve(listener) }) // it ends when it is shut down
	p.work.Go(p.sample)
	return p, nil
}

// close ends the page, and returns when nothing of it is left.
func (p *page) close() {
	close(p.halt)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		_ = p.server.Close()
	}
	p.work.Wait()
}

func (p *page) routes() http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // it is part of the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /state", p.state)
	mux.HandleFunc("POST /do", p.do)
	guarded := localOnly(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", pagePolicy)
		guarded.ServeHTTP(w, r)
	})
}

// do obeys a command.
func (p *page) do(w http.ResponseWriter, r *http.Request) {
	var c command
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<12)).Decode(&c); err != nil {
		http.Error(w, "a command is a JSON object: "+err.Error(), http.StatusBadRequest)
		return
	}
	switch err := p.demo.order(r.Context(), c); {
	case errors.Is(err, errRefused):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// Began implements observer.
func (p *page) Began([]castMember) {}

// Sampled implements observer. The page takes samples of its own, which are shorter.
func (p *page) Sampled(sample) {}

// Happened implements observer.
func (p *page) Happened(e event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
	if over := len(p.events) - eventCount; over > 0 {
		p.events = p.events[over:]
	}
}

// Judged implements observer.
func (p *page) Judged(v verdict) {
	if !v.held() {
		p.Happened(event{At: v.To, Text: "the limit has not been held: see the verdict in the terminal"})
	}
}

// sample adds a point in every interval and judges what was until then, until the page is closed.
func (p *page) sample() {
	ticker := time.NewTicker(pointInterval)
	defer ticker.Stop()
	var judgeAt time.Time
	for {
		select {
		case <-ticker.C:
		case <-p.halt:
			return
		}
		now := p.demo.clock.elapsed()
		if now == 0 {
			continue
		}
		p.add(now)
		if began := time.Now(); !began.Before(judgeAt) {
			v := judge(p.demo.evidence())
			p.mu.Lock()
			p.verdict = v
			p.mu.Unlock()
			judgeAt = time.Now().Add(max(2*pointInterval, judgeShare*time.Since(began)) - pointInterval/2)
		}
	}
}

func (p *page) add(now time.Duration) {
	total, limit := p.demo.recorder.totals(), p.demo.allKeysLimit()
	p.mu.Lock()
	defer p.mu.Unlock()
	before := time.Duration(0)
	if len(p.points) > 0 {
		before = p.points[len(p.points)-1].at
	}
	if now == before {
		return
	}
	p.points = append(p.points, point{now, now - before, limit, total.minus(p.last)})
	p.last = total
	if over := len(p.points) - historyLength; over > 0 {
		p.points = p.points[over:]
	}
}

// audience shows a run to several observers.
type audience []observer

func (a audience) Began(cast []castMember) {
	for _, o := range a {
		o.Began(cast)
	}
}

func (a audience) Sampled(s sample) {
	for _, o := range a {
		o.Sampled(s)
	}
}

func (a audience) Happened(e event) {
	for _, o := range a {
		o.Happened(e)
	}
}

func (a audience) Judged(v verdict) {
	for _, o := range a {
		o.Judged(v)
	}
}
