// Package schedule runs whole clusters under joins, leaves, crashes, freezes, cuts and splits, and judges what came of it.
// Everything that happens follows from a seed, in controlled time:
//
//	New      what is to happen, drawn from a seed              plan.go, draw.go, changes.go
//	Play     a cluster to which it happens, under load         run.go, call.go, look.go
//	judge    whether it cost more than the guarantees allow    judge.go, shares.go, newcomers.go, goeson.go
//	Failure  what went wrong, with the timeline of one key     trace.go
//	Tally    many runs of one family, summed up                tally.go
//
// Its tests are these runs (TestSchedules), those that once failed (TestScheduleRegressions), and tests of the judge.
package schedule
