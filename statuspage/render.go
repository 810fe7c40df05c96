package statuspage

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // of the page's three parts
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/peerlimit/peerlimit/internal/printable"
)

var (
	//go:embed page.html
	pageHTML string

	//go:embed page.css
	pageCSS string

	//go:embed page.js
	pageJS string
)

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"css":   func() template.CSS { return template.CSS(pageCSS) }, // #nosec G203 -- a file of this package
	"js":    func() template.JS { return template.JS(pageJS) },    // #nosec G203 -- likewise
	"clock": func(t time.Time) string { return t.UTC().Format("15:04:05.000") },
	"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"ms": func(ms float64) string {
		return time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond).String()
	},
	"age":   func(ms *float64) string { return fmt.Sprintf("%.0f ms", *ms) },
	"short": func(n float64) string { return strconv.FormatFloat(math.Round(n*100)/100, 'f', -1, 64) },
	"about": twoDigits,
	"keys":  func(id, title, unit string, keys []busyKey) keyTable { return keyTable{id, title, unit, keys} },
	"uptime": func(ms float64) string {
		return time.Duration(ms * float64(time.Millisecond)).Round(time.Second).String()
	},
}).Parse(pageHTML))

// twoDigits returns a number that is estimated, without digits that say nothing.
func twoDigits(n float64) string {
	if n <= 0 {
		return "0"
	}
	unit := math.Pow(10, math.Floor(math.Log10(n))-1)
	return strconv.FormatFloat(math.Round(n/unit)*unit, 'f', max(0, int(-math.Log10(unit)+0.5)), 64)
}

// keyTable is a table of keys on the page.
type keyTable struct {
	ID, Title, Unit string
	Keys            []busyKey
}

// policy lets the page do nothing but what it does: its own style and script, and asking its own server.
var policy = fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	digest(pageCSS), digest(pageJS))

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func writeHTML(w http.ResponseWriter, r *report) {
	var b bytes.Buffer
	if err := page.Execute(&b, r); err != nil { // nothing has been sent yet
		http.Error(w, "The status page cannot be shown: "+printable.Cut(err.Error(), maxFault), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(b.Bytes()) // a client that has closed the connection misses nothing
}

func writeJSON(w http.ResponseWriter, r *report) {
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		http.Error(w, "The status cannot be encoded: "+printable.Cut(err.Error(), maxFault), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(encoded, '\n'))
}
