package wire

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// Turn names one that waits at a bucket, among all of the cluster.
type Turn struct {
	Node   string        // the node whose caller waits: it is told when the turn has come
	Number uint64        // of its waits
	Waited time.Duration // how long it has waited already, when it asked; await
	Late   time.Duration // how long the request has looked for the holder since then; await
}

func appendTurn(b []byte, t *Turn) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(t.Node))), t.Node...)
	b = binary.AppendUvarint(b, t.Number)
	return appendDuration(b, t.Waited)
}

func (r *reader) turn() Turn {
	t := Turn{Node: string(r.bytes(MaxIdentityLen)), Number: r.uvarint(), Waited: r.duration()}
	if t.Node == "" {
		r.fail()
	}
	return t
}

// Wake tells a node about one of its callers that waits: its turn has come, and what was decided then; or it has to ask again,
// because the node that says so does not decide about the key any more.
type Wake struct {
	Turn     Turn
	Granted  bool
	Decision limit.Decision
}

func AppendWake(b []byte, w *Wake) []byte {
	b = append(b, byte(KindWake), WireVersion, BoolByte(w.Granted))
	b = appendTurn(b, &w.Turn)
	response := Response{Status: StatusElsewhere}
	if w.Granted {
		response = Response{Status: StatusDecided, Decision: w.Decision}
	}
	return AppendResponse(b, &response)
}

// DecodeWake decodes what AppendWake encoded. It shares nothing with b.
func DecodeWake(b []byte) (w Wake, err error) {
	r := reader{b: b}
	kind, version := Kind(r.byte()), r.byte()
	if kind != KindWake || version == 0 {
		return Wake{}, fmt.Errorf("%w: kind %d, version %d", ErrMalformed, kind, version)
	}
	w.Granted = r.byte()&1 != 0
	w.Turn = r.turn()
	if r.failed {
		return Wake{}, fmt.Errorf("%w: a turn that is cut short", ErrMalformed)
	}
	response, err := DecodeResponse(r.b)
	if err != nil {
		return Wake{}, err
	}
	w.Decision = response.Decision
	w.Granted = w.Granted && response.Status == StatusDecided
	return w, nil
}
