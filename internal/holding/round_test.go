package holding

import (
	"fmt"
	"slices"
	"testing"

	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// pieceOf returns a piece of a copy with one bucket, which goes on at next, or is the last when that is 0.
func pieceOf(kind wire.ReplyKind, number uint64, key string, next uint32) *wire.PartitionReply {
	a := &wire.PartitionReply{
		Kind: kind, Version: wire.Version{Ballot: wire.Ballot{Number: number, By: "x"}}, Next: next,
		Content: wire.Content{Buckets: []wire.Image{{Limiter: "api", Key: key, Levels: []float64{1}}}},
	}
	return a
}

// stageOf has an attempt stage a piece and returns all of the copy once that is whole: here, the keys in it.
func stageOf(a *Attempt, peer int, from uint32, piece *wire.PartitionReply) (whole []string) {
	s, last := a.Stage(peer, from, piece)
	if s == nil {
		return nil
	}
	keys, _ := s.Content.([]string)
	for _, image := range piece.Content.Buckets {
		keys = append(keys, image.Key)
	}
	if s.Content = keys; !last {
		return nil
	}
	return keys
}

// Two peers send a copy each, in pieces that take turns. Once they had one place for both: the second threw away what had come
// of the first, and the last piece of that passed for all of it.
func TestPiecesOfTwoPeersAreKeptApart(t *testing.T) {
	var a Attempt
	const holder, standby = 0, 1
	for i, from := range []uint32{0, 10, 20} {
		whole := stageOf(&a, holder, from, pieceOf(wire.ReplyTransferred, 2, fmt.Sprint("given", i), from+10))
		require.Nil(t, whole)
		whole = stageOf(&a, standby, from, pieceOf(wire.ReplyNotHolding, 1, fmt.Sprint("replica", i), from+10))
		require.Nil(t, whole)
	}
	require.Equal(t, uint32(30), a.Continue(holder))
	whole := stageOf(&a, holder, 30, pieceOf(wire.ReplyTransferred, 2, "given3", 0))
	require.NotNil(t, whole)
	require.ElementsMatch(t, []string{"given0", "given1", "given2", "given3"}, whole)
	whole = stageOf(&a, standby, 30, pieceOf(wire.ReplyNotHolding, 1, "replica3", 0))
	require.NotNil(t, whole)
	require.ElementsMatch(t, []string{"replica0", "replica1", "replica2", "replica3"}, whole)
	require.Empty(t, a.stages)
}

// A piece that does not continue those of its peer is not taken, and never makes a copy whole.
func TestAPieceContinuesThoseBefore(t *testing.T) {
	for name, c := range map[string]struct {
		from    uint32
		piece   *wire.PartitionReply
		goingOn uint32 // where the next request goes on
	}{
		"the first one again":               {0, pieceOf(wire.ReplyTransferred, 2, "k", 10), 20},
		"one that was there, again":         {10, pieceOf(wire.ReplyTransferred, 2, "k", 20), 20},
		"one that nobody asked for":         {30, pieceOf(wire.ReplyTransferred, 2, "k", 0), 20},
		"of another version":                {20, pieceOf(wire.ReplyTransferred, 3, "k", 0), 0},
		"of a transfer that is one no more": {20, pieceOf(wire.ReplyNotHolding, 2, "k", 0), 0},
		"one that goes on where it began":   {20, pieceOf(wire.ReplyTransferred, 2, "k", 20), 0},
		"the first one of another version":  {0, pieceOf(wire.ReplyTransferred, 3, "k", 10), 10},
	} {
		t.Run(name, func(t *testing.T) {
			var a Attempt
			stageOf(&a, 0, 0, pieceOf(wire.ReplyTransferred, 2, "a", 10))
			stageOf(&a, 0, 10, pieceOf(wire.ReplyTransferred, 2, "b", 20))
			whole := stageOf(&a, 0, c.from, c.piece)
			require.Nil(t, whole)
			require.Equal(t, c.goingOn, a.Continue(0))
		})
	}
	var a Attempt
	whole := stageOf(&a, 0, 10, pieceOf(wire.ReplyTransferred, 2, "k", 0))
	require.Nil(t, whole, "without those before")
	require.Zero(t, a.Continue(0))
}

// Pieces of copies that cannot be the highest any more are not kept.
func TestPiecesThatCannotWinAreDropped(t *testing.T) {
	var a Attempt
	for peer := range 3 {
		stageOf(&a, peer, 0, pieceOf(wire.ReplyNotHolding, uint64(peer+1), "k", 10))
	}
	stageOf(&a, 3, 0, pieceOf(wire.ReplyTransferred, 2, "k", 10))
	a.DropOutdone(wire.Version{Ballot: wire.Ballot{Number: 2, By: "x"}})
	require.Equal(t, []uint32{0, 0, 10, 10}, []uint32{a.Continue(0), a.Continue(1), a.Continue(2), a.Continue(3)})
}

// names is a roster that never changes.
type names []string

func (n names) Generation() uint64       { return 1 }
func (n names) Asked() []string          { return n }
func (n names) IsAsked(name string) bool { return slices.Contains(n, name) }

// A response can name a member of which this node has not heard otherwise. The round waits for its response; but it was not
// asked when it became known after that, and the round went on forever.
func TestAMemberThatAResponseNamesIsAsked(t *testing.T) {
	nobody := func(string) bool { return false }
	r := NewRound(t.Context(), wire.Ballot{Number: 1, By: "a"}, names{"a", "b"}, map[string]bool{}, nobody)
	defer r.End()
	require.Equal(t, []string{"b"}, r.AskAll())
	r.Index("c")
	news, _ := r.Refresh(names{"a", "b", "c"}, "a", nobody)
	require.Equal(t, []string{"c"}, news)
	news, _ = r.Refresh(names{"a", "b", "c"}, "a", nobody)
	require.Empty(t, news, "it is being asked")
}
