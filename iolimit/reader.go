package iolimit

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// Reader reads no faster than its bandwidth allows. Make one with [NewReader]; it is safe for concurrent use.
type Reader struct {
	in    *inflow
	ctx   context.Context
	close context.CancelCauseFunc
}

// NewReader returns a reader of what is in source. Waiting for bandwidth ends with ctx, with ctx.Err(); a Read of source
// that blocks is not broken off. ctx also supplies the values that a LimiterFunc sees. Close it, which does not close
// source. Errors match [ErrInvalid].
func NewReader(ctx context.Context, source io.Reader, b Bandwidth) (*Reader, error) {
	if source == nil {
		return nil, fmt.Errorf("%w reader: source is nil", ErrInvalid)
	}
	if err := b.validate(); err != nil {
		return nil, err
	}
	r := &Reader{in: &inflow{source: source, account: newAccount(ctx, b)}}
	r.ctx, r.close = context.WithCancelCause(ctx)
	return r, nil
}

// Read reads from the source once and returns when what was read may pass. It may read less than there is room for, to
// let others have their turn. Bytes that were read when ctx ended are kept; nothing is lost. Other errors than those of
// the source and of ctx are [ErrClosed] and those of the Taker.
func (r *Reader) Read(p []byte) (int, error) { return r.in.read(r.ctx, p) }

// Close ends reads that wait for bandwidth, and gives back what was taken and not used. It does not close the source, and
// bytes that were read from it and not paid for are dropped. It returns nil, also when called again.
func (r *Reader) Close() error {
	r.close(ErrClosed)
	r.in.account.close()
	return nil
}

// inflow reads from a source at the pace of an account.
type inflow struct {
	source  io.Reader
	account *account

	// These belong to the call that has the account's turn: what was read and could not be paid for, and what the source said with it.
	unpaid    []byte
	sourceErr error
}

func (f *inflow) read(ctx context.Context, p []byte) (int, error) {
	if err := f.account.enter(ctx); err != nil {
		return 0, err
	}
	defer f.account.leave()
	switch {
	case len(p) == 0:
		return 0, nil
	case len(f.unpaid) > 0:
		return f.readUnpaid(ctx, p)
	case f.sourceErr != nil:
		err := f.sourceErr
		f.sourceErr = nil
		return 0, err
	}
	p = p[:f.account.piece(len(p))]
	n, err := f.source.Read(p)
	if n < 0 || n > len(p) {
		return 0, fmt.Errorf("iolimit: the source says it read %d of %d bytes", n, len(p))
	}
	if n == 0 {
		return 0, err
	}
	paid, interrupted := f.account.pay(ctx, n)
	if paid == n {
		return n, err
	}
	f.unpaid, f.sourceErr = slices.Clone(p[paid:n]), err
	clear(p[paid:n]) // they have not passed
	return paid, interrupted
}

// readUnpaid reads what an earlier call could not pay for.
func (f *inflow) readUnpaid(ctx context.Context, p []byte) (int, error) {
	paid, err := f.account.pay(ctx, f.account.piece(min(len(p), len(f.unpaid))))
	copy(p, f.unpaid[:paid])
	f.unpaid = f.unpaid[paid:]
	return paid, err
}
