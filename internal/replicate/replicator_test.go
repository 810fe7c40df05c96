package replicate

import (
	"fmt"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where more changes than a standby should get, each bucket is sent less often; where little does, nothing rests.
func TestManyChangesRest(t *testing.T) {
	for changed, rest := range map[int]time.Duration{0: 0, 100: 2 * time.Millisecond, 1000: 20 * time.Millisecond, 1_000_000: restMax} {
		t.Run(fmt.Sprint(changed), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				r := c.members["self"]
				require.True(t, r.tryStartSend("standby", c.now()))
				r.finishSend("standby", c.now(), changed)
				time.Sleep(rest)
				require.Zero(t, r.Lag(c.now()), "it has everything")
				if rest > 0 {
					require.False(t, r.tryStartSend("standby", c.now()-1), "it rests")
				}
				require.True(t, r.tryStartSend("standby", c.now()))
				time.Sleep(time.Second)
				require.Equal(t, time.Second, r.Lag(c.now()), "since it was sent something")
			}, "self", "standby")
		})
	}
}

// What has changed is with the standby within one interval, in versions that only rise; nothing is sent while nothing changes,
// and an old message that comes again changes nothing.
func TestChangesReachTheStandby(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		c.run()
		for n := 1; n <= 5; n++ {
			before := b.copyOf(part)
			a.take(part, "key", "other")
			time.Sleep(interval + 2*time.Millisecond)
			require.Equal(t, n, b.taken(part, "key"))
			require.Equal(t, n, b.taken(part, "other"))
			require.Equal(t, a.copyOf(part), b.copyOf(part))
			require.True(t, before.Below(b.copyOf(part)), "%+v, then %+v", before, b.copyOf(part))
		}
		sent := a.requests("b", wire.KindReplica)
		time.Sleep(time.Second)
		require.Len(t, a.requests("b", wire.KindReplica), len(sent), "nothing has changed")
		last := b.copyOf(part)
		for _, old := range sent {
			b.hear(old.request)
			require.Equal(t, last, b.copyOf(part))
			require.Equal(t, 5, b.taken(part, "key"))
		}
		require.Zero(t, b.taken(part, "nobody's"))
	}, "a", "b", "c")
}

// A standby that does not answer is asked again after pauses that double, up to 160 ms, by another way every time. Lag says since
// when it is behind; when it answers again it gets everything, and the pauses begin from the shortest.
func TestPausesOfASilentStandbyDouble(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		c.run("a")
		b.set(func() { b.silent = true })
		a.take(part, "key")
		time.Sleep(4 * time.Second)
		tries := a.requests("b", wire.KindReplica)
		require.Greater(t, len(tries), 7)
		for i, try := range tries {
			require.Equal(t, i, try.try)
			if i == 0 {
				continue
			}
			pause := try.at - tries[i-1].at - replicaTimeout
			want := min(10*time.Millisecond<<(i-1), 160*time.Millisecond)
			require.GreaterOrEqual(t, pause, want, "before try %d", i)
			require.LessOrEqual(t, pause, want+interval, "before try %d", i)
		}
		require.Equal(t, time.Duration(c.now())-tries[0].at, a.Lag(c.now()))

		a.take(part, "key", "another")
		b.set(func() { b.silent = false })
		time.Sleep(replicaTimeout + replicaPauseMax + interval)
		require.Equal(t, 2, b.taken(part, "key"))
		require.Equal(t, 1, b.taken(part, "another"))
		require.Zero(t, a.Lag(c.now()))

		count := len(a.requests("b", wire.KindReplica))
		b.set(func() { b.silent = true })
		a.take(part, "key")
		time.Sleep(time.Second)
		tries = a.requests("b", wire.KindReplica)[count:]
		require.Greater(t, len(tries), 1)
		require.LessOrEqual(t, tries[1].at-tries[0].at, replicaTimeout+replicaPauseMin+interval)
	}, "a", "b")
}

// While a standby takes long to answer, no second message goes to it; what changes meanwhile goes with the next one. Another
// standby does not wait for it.
func TestOneMessageIsUnderWayToAStandby(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b, other := c.members["a"], c.members["b"], c.members["c"]
		part, others := c.partOf("a", "b"), c.partOf("a", "c")
		a.hold(part, 1)
		a.hold(others, 1)
		c.run("a")
		const takes = 210 * time.Millisecond
		b.set(func() { b.takes = takes })
		for n := 1; n <= 100; n++ {
			a.take(part, "key")
			a.take(others, "key")
			time.Sleep(interval)
			require.GreaterOrEqual(t, other.taken(others, "key"), n-1)
		}
		sent := a.requests("b", wire.KindReplica)
		require.InDelta(t, 100*interval/takes, len(sent), 2)
		for i := 1; i < len(sent); i++ {
			require.GreaterOrEqual(t, sent[i].at-sent[i-1].at, takes)
		}
		time.Sleep(2*takes + 2*interval)
		require.Equal(t, 100, b.taken(part, "key"))
	}, "a", "b", "c")
}

// When a standby has gone, the next one gets everything, not only what changes from then on.
func TestANewStandbyGetsEverything(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b, next := c.members["a"], c.members["b"], c.members["c"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		c.run()
		a.take(part, "old", "both")
		time.Sleep(2 * interval)
		require.Equal(t, 1, b.taken(part, "both"))
		require.Zero(t, next.taken(part, "both"))

		c.ring.Store(ring.New([]string{"a", "c"}))
		time.Sleep(2 * interval)
		require.Equal(t, []int{1, 1}, []int{next.taken(part, "old"), next.taken(part, "both")}, "although nothing has changed")
		a.take(part, "both", "new")
		time.Sleep(2 * interval)
		require.Equal(t, []int{1, 2, 1}, []int{next.taken(part, "old"), next.taken(part, "both"), next.taken(part, "new")})
		require.Equal(t, a.copyOf(part), next.copyOf(part))
		require.Equal(t, 1, b.taken(part, "both"), "it is nobody's standby")

		c.setRing("a", "b", "c")
		a.take(part, "both")
		time.Sleep(2 * interval)
		require.Equal(t, []int{1, 3, 1}, []int{b.taken(part, "old"), b.taken(part, "both"), b.taken(part, "new")})
	}, "a", "b", "c")
}

// A partition that one message has no room for goes to a new standby in pieces, and what changes meanwhile is not lost.
func TestMuchGoesInPieces(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		const keys = 5000
		name := func(i int) string { return fmt.Sprintf("key-%06d", i) }
		for i := range keys {
			a.take(part, name(i))
		}
		b.set(func() {
			b.instead = func(_ []byte, _ int, answer func() []byte) ([]byte, error) {
				a.take(part, name(0), name(keys-1))
				return answer(), nil
			}
		})
		c.run()
		time.Sleep(interval + time.Millisecond)
		b.set(func() { b.instead = nil })
		time.Sleep(restMax + 2*interval)
		require.Greater(t, len(a.requests("b", wire.KindReplica)), 4)
		for i := range keys {
			require.Equal(t, a.taken(part, name(i)), b.taken(part, name(i)), name(i))
		}
		require.Greater(t, b.taken(part, name(0)), 1)
		require.Equal(t, a.copyOf(part), b.copyOf(part))
	}, "a", "b")
}

// What one message has no room for, and what a message had that was lost, is sent when the standby answers again.
func TestWhatALostMessageLeavesIsSentLater(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		var parts []uint16
		for part := range uint16(ring.Partitions) {
			if c.ring.Load().Owner(part) == "a" {
				parts = append(parts, part)
				a.hold(part, 1)
			}
		}
		c.run()
		time.Sleep(time.Second)
		b.set(func() { b.silent = true })
		for _, part := range parts {
			a.take(part, fmt.Sprintf("%0100d", part))
		}
		time.Sleep(2 * interval)
		b.set(func() { b.silent = false })
		time.Sleep(time.Second)
		for _, part := range parts {
			require.Equal(t, 1, b.taken(part, fmt.Sprintf("%0100d", part)))
		}
	}, "a", "b")
}

// When the ring changes while messages go to a standby, what the next ones would have had goes to the new standby instead.
func TestAStandbyThatIsNoneAnyMoreGetsNoMore(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		var parts []uint16
		for part := range uint16(ring.Partitions) {
			if c.ring.Load().Owner(part) == "a" && c.ring.Load().OwnerWithout(part, "a") == "b" {
				parts = append(parts, part)
				a.hold(part, 1)
				a.take(part, fmt.Sprintf("%0200d", part))
			}
		}
		b.set(func() {
			b.instead = func(_ []byte, _ int, answer func() []byte) ([]byte, error) {
				c.ring.Store(ring.New([]string{"a", "c"}))
				return answer(), nil
			}
		})
		c.run("a")
		time.Sleep(time.Second)
		require.Len(t, a.requests("b", wire.KindReplica), 1)
		for _, part := range parts {
			require.Equal(t, 1, c.members["c"].taken(part, fmt.Sprintf("%0200d", part)))
		}
	}, "a", "b", "c")
}

// A standby that has not answered and then leaves the ring is not waited for any more.
func TestAStandbyThatHasLeftIsForgotten(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		c.run("a")
		b.set(func() { b.silent = true })
		a.take(part, "key")
		time.Sleep(replicaTimeout + interval)
		require.GreaterOrEqual(t, a.Lag(c.now()), replicaTimeout)
		time.Sleep(replicaPauseMin + interval) // the next try is under way
		c.ring.Store(ring.New([]string{"a", "c"}))
		time.Sleep(replicaTimeout + interval)
		require.Zero(t, a.Lag(c.now()))
		require.Equal(t, 1, c.members["c"].taken(part, "key"))
	}, "a", "b", "c")
}

// When the new ring has no standby so far, nothing is sent until the new owner has had the time to acquire.
func TestAStandbyThatHasLeftGetsNothingDuringGrace(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.members["a"]
		owner := c.add("new", interval)
		after := ring.New([]string{"a", "c", "new"})
		part := uint16(0)
		for after.Owner(part) != "new" || c.ring.Load().Owner(part) != "a" || c.ring.Load().OwnerWithout(part, "a") != "b" {
			part++
		}
		a.hold(part, 1)
		c.run()
		a.take(part, "key")
		time.Sleep(handoverGrace)
		before := len(a.requests("b", wire.KindReplica))
		c.ring.Store(after)
		a.take(part, "key")
		time.Sleep(handoverGrace - interval)
		require.Len(t, a.requests("b", wire.KindReplica), before)
		require.Empty(t, a.requests("new", wire.KindReplica))
		time.Sleep(3 * interval)
		require.Equal(t, 2, owner.taken(part, "key"))
	}, "a", "b", "c")
}

// When a new ring names another owner, it is about to ask for the partition: for 200 ms the standby so far gets what changes.
// An owner that has not acquired by then gets everything.
func TestTheStandbySoFarGetsChangesUntilTheNewOwnerHasHadTime(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		owner := c.add("new", interval)
		after := ring.New([]string{"a", "b", "c", "new"})
		part := uint16(0)
		for after.Owner(part) != "new" || c.ring.Load().Owner(part) != "a" || c.ring.Load().OwnerWithout(part, "a") != "b" {
			part++
		}
		a.hold(part, 1)
		c.run()
		a.take(part, "key")
		time.Sleep(2 * interval)
		require.Equal(t, 1, b.taken(part, "key"))

		time.Sleep(handoverGrace)
		c.setRing("a", "b", "c", "new")
		a.take(part, "key")
		time.Sleep(handoverGrace - interval)
		require.Equal(t, 2, b.taken(part, "key"))
		require.Zero(t, owner.taken(part, "key"))
		require.Empty(t, a.requests("new", wire.KindReplica))

		time.Sleep(3 * interval)
		require.Equal(t, 2, owner.taken(part, "key"))
		a.take(part, "key")
		time.Sleep(2 * interval)
		require.Equal(t, 3, owner.taken(part, "key"))
		require.Equal(t, 2, b.taken(part, "key"), "it is not the standby any more")
	}, "a", "b", "c")
}

// Of two that hold, the one that its ring does not name yields to the owner. It keeps its copy.
func TestAHolderYieldsToTheOwner(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		b.hold(part, 2)
		b.take(part, "key")
		c.run("b")
		time.Sleep(handoverGrace + 2*interval)
		require.False(t, b.table.Holds(part))
		require.True(t, a.table.Holds(part))
		_, yielded := b.counts()
		require.Equal(t, 1, yielded)
		require.Equal(t, 1, b.taken(part, "key"))
		require.Zero(t, a.taken(part, "key"))
	}, "a", "b")
}

// An owner whose standby holds does not yield: it acquires anew, above the other's ballot, and decides meanwhile. Nothing more is
// sent until then.
func TestAnOwnerWhoseStandbyHoldsAcquiresAnew(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		b.hold(part, 2)
		c.run("a")
		a.take(part, "key")
		time.Sleep(time.Second)
		require.True(t, a.table.Holds(part))
		require.True(t, a.table.IsChallenged(part))
		challenged, yielded := a.counts()
		require.Equal(t, []int{1, 0}, []int{challenged, yielded})
		require.Len(t, a.requests("b", wire.KindReplica), 1)
		p := a.table.Lock(part)
		defer p.Unlock()
		require.Equal(t, ballot(2, "b"), p.Holding.Promised)
	}, "a", "b")
}

// A standby that has promised a ballot refuses. When it is its own, it is about to ask for the partition, so this node lets
// it go first; when it is another node's, this node acquires anew without delay.
func TestARefusedHolderLetsAStandbyThatAcquiresGoFirst(t *testing.T) {
	for by, postponed := range map[string]bool{"b": true, "c": false} {
		t.Run(by, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a, b := c.members["a"], c.members["b"]
				part := c.partOf("a", "b")
				a.hold(part, 1)
				p := b.table.Lock(part)
				p.Holding.Promise(ballot(4, by))
				p.Unlock()
				c.run("a")
				a.take(part, "key")
				time.Sleep(2 * interval)
				require.True(t, a.table.IsChallenged(part))
				challenged, _ := a.counts()
				require.Equal(t, 1, challenged)
				if postponed {
					require.Equal(t, []uint16{part}, a.postponed)
				} else {
					require.Empty(t, a.postponed)
				}
				require.EqualValues(t, 4, a.reach.Heard.Load(), "the next ballot is above it")
			}, "a", "b", "c")
		})
	}
}

// A response that is not one to what was sent is none: nothing counts as acknowledged, and all is sent again.
func TestAResponseToSomethingElseIsNone(t *testing.T) {
	for name, response := range map[string]func(part uint16) []byte{
		"malformed":         func(uint16) []byte { return []byte{1, 2, 3} },
		"no part":           func(uint16) []byte { return wire.AppendReplicaResponse(nil, &wire.ReplicaResponse{}) },
		"another partition": func(part uint16) []byte { return taken(part + 1) },
		"one more":          func(part uint16) []byte { return taken(part, part+1) },
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a, b := c.members["a"], c.members["b"]
				part := c.partOf("a", "b")
				a.hold(part, 1)
				b.set(func() {
					b.instead = func([]byte, int, func() []byte) ([]byte, error) { return response(part), nil }
				})
				c.run("a")
				a.take(part, "key")
				time.Sleep(200 * time.Millisecond)
				tries := a.requests("b", wire.KindReplica)
				require.Greater(t, len(tries), 2)
				require.Equal(t, 2, tries[2].try)
				require.True(t, a.table.Lacks(part, "b"))
				require.Positive(t, a.Lag(c.now()))
				b.set(func() { b.instead = nil })
				time.Sleep(200 * time.Millisecond)
				require.False(t, a.table.Lacks(part, "b"))
				require.Equal(t, 1, b.taken(part, "key"))
			}, "a", "b")
		})
	}
}

// taken is a response that says that some partitions were taken.
func taken(parts ...uint16) []byte {
	response := &wire.ReplicaResponse{}
	for _, part := range parts {
		response.Parts = append(response.Parts, wire.ReplicaAck{Part: part, Status: wire.ReplicaTaken})
	}
	return wire.AppendReplicaResponse(nil, response)
}

// A node without quorum sends nothing: what it held is not its own any more.
func TestNothingIsSentWithoutQuorum(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		a.hold(part, 1)
		a.take(part, "key")
		a.loseQuorum()
		c.run()
		time.Sleep(time.Second)
		require.Empty(t, a.requests("b", wire.KindReplica))
		require.Zero(t, b.taken(part, "key"))
	}, "a", "b")
}

// With replication off, nothing goes to the standby. A holder that the ring does not name as the owner still sends to the owner:
// so two clusters that meet find out that both hold.
func TestWithoutReplicationOnlyAnUnnamedHolderSends(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.add("b", -1)
		part, unnamed := c.partOf("b", "a"), c.partOf("a", "b")
		b.hold(part, 1)
		b.hold(unnamed, 2)
		a.hold(unnamed, 1)
		c.run("b")
		b.take(part, "key")
		b.take(unnamed, "key")
		time.Sleep(2 * time.Second)
		require.True(t, b.table.Holds(part))
		require.Zero(t, a.taken(part, "key"))
		require.False(t, b.table.Holds(unnamed))
		_, yielded := b.counts()
		assert.Equal(t, 1, yielded)
	}, "a", "b")
}

// A holder that the ring does not name as the owner sends everything again each second, though nothing has changed and all was
// acknowledged: the owner may have begun to hold since.
func TestAnUnnamedHolderRepeats(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part, named := c.partOf("a", "b"), c.partOf("b", "a")
		b.hold(part, 1)
		b.hold(named, 1)
		c.run("b")
		b.take(part, "key")
		b.take(named, "key")
		time.Sleep(5*time.Second + 2*interval)
		require.Equal(t, 1, a.taken(part, "key"))
		var ofPart, ofNamed int
		for _, sent := range b.requests("a", wire.KindReplica) {
			m := wire.ReplicaMemory{Message: sent.request}
			q, err := m.Decode(a.rules.PlainSet)
			require.NoError(t, err)
			for _, p := range q.Parts {
				switch p.Part {
				case part:
					ofPart++
				case named:
					ofNamed++
				}
			}
		}
		require.Equal(t, 1, ofNamed, "the owner's standby has everything")
		require.InDelta(t, 6, ofPart, 1)

		a.hold(part, 2) // it acquires, on the copy it was sent
		time.Sleep(time.Second + 2*interval)
		require.False(t, b.table.Holds(part))
	}, "a", "b")
}
