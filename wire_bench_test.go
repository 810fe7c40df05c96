package peerlimit

import (
	"github.com/peerlimit/peerlimit/internal/limit"
	"testing"
)

// BenchmarkWire is what a caller and an owner do for the bytes of one take, with a key of 20 bytes.
func BenchmarkWire(b *testing.B) {
	limits := []limit.Limit{withBurst(perMinute(100), 20)}
	question := message{kind: kindTake, rule: appendRule(nil, "per-user", limits), key: "user-000000000000042", cost: 1}
	reply := answer{status: statusDecided, decision: limit.Decision{Allowed: true, Limit: limits[0], Remaining: 17.25, ResetAfter: 1e9}}
	var buffer [512]byte
	b.Run("ask", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			appendMessage(buffer[:0], &question)
		}
	})
	asked := appendMessage(nil, &question)
	b.Run("hear", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeMessage(asked); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("answer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			appendAnswer(buffer[:0], &reply)
		}
	})
	answered := appendAnswer(nil, &reply)
	b.Run("understand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeAnswer(answered); err != nil {
				b.Fatal(err)
			}
		}
	})
}
