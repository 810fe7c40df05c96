package wire

import (
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// BenchmarkWire is what a caller and an owner do for the bytes of one take, with a key of 20 bytes.
func BenchmarkWire(b *testing.B) {
	limits := []limit.Limit{withBurst(perMinute(100), 20)}
	request := Message{Kind: KindTake, Rule: AppendRule(nil, "per-user", limits), Key: "user-000000000000042", Cost: 1}
	reply := Response{Status: StatusDecided, Decision: limit.Decision{Allowed: true, Limit: limits[0], Remaining: 17.25, ResetAfter: 1e9}}
	var buffer [512]byte
	b.Run("ask", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendMessage(buffer[:0], &request)
		}
	})
	asked := AppendMessage(nil, &request)
	b.Run("hear", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeMessage(asked); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("answer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendResponse(buffer[:0], &reply)
		}
	})
	answered := AppendResponse(nil, &reply)
	b.Run("understand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeResponse(answered); err != nil {
				b.Fatal(err)
			}
		}
	})
}
