package iolimit

import (
	"context"
	"fmt"
	"io"
)

// Writer writes no faster than its bandwidth allows. Make one with [NewWriter]; it is safe for concurrent use, and writes
// are not mixed up with each other.
type Writer struct {
	out   *outflow
	ctx   context.Context
	close context.CancelCauseFunc
}

// NewWriter returns a writer to sink. Waiting for bandwidth ends with ctx, with ctx.Err(); a Write to sink that blocks is
// not broken off. ctx also supplies the values that a LimiterFunc sees. Close it, which does not close sink. Errors match
// [ErrInvalid].
func NewWriter(ctx context.Context, sink io.Writer, b Bandwidth) (*Writer, error) {
	if sink == nil {
		return nil, fmt.Errorf("%w writer: sink is nil", ErrInvalid)
	}
	if err := b.validate(); err != nil {
		return nil, err
	}
	w := &Writer{out: &outflow{sink: sink, account: newAccount(ctx, b)}}
	w.ctx, w.close = context.WithCancelCause(ctx)
	return w, nil
}

// Write writes p to the sink, in pieces, each when it may pass. When ctx ends it says how many bytes were written until
// then. Other errors than those of the sink and of ctx are [ErrClosed] and those of the Taker.
func (w *Writer) Write(p []byte) (int, error) { return w.out.write(w.ctx, p) }

// Close ends writes that wait for bandwidth, and gives back what was taken and not used. It does not close the sink. It
// returns nil, also when called again.
func (w *Writer) Close() error {
	w.close(ErrClosed)
	w.out.account.close()
	return nil
}

// outflow writes to a sink at the pace of an account.
type outflow struct {
	sink    io.Writer
	account *account
}

func (f *outflow) write(ctx context.Context, p []byte) (written int, err error) {
	if err := f.account.enter(ctx); err != nil {
		return 0, err
	}
	defer f.account.leave()
	for written < len(p) {
		n, err := f.writePiece(ctx, p[written:])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// writePiece writes the beginning of p, which is not empty.
func (f *outflow) writePiece(ctx context.Context, p []byte) (int, error) {
	paid, err := f.account.pay(ctx, f.account.piece(len(p)))
	if err != nil {
		return 0, err
	}
	p = p[:paid]
	n, err := f.sink.Write(p)
	if n < 0 || n > len(p) {
		return 0, fmt.Errorf("iolimit: the sink says it wrote %d of %d bytes", n, len(p))
	}
	if n < len(p) {
		f.account.unpay(len(p) - n)
		if err == nil {
			err = io.ErrShortWrite
		}
	}
	return n, err
}
