package grpclimit

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peerlimit/peerlimit"
)

// callError is a status that still matches what it came from.
type callError struct {
	status *status.Status
	cause  error
}

func (e *callError) Error() string              { return e.status.Err().Error() }
func (e *callError) GRPCStatus() *status.Status { return e.status }
func (e *callError) Unwrap() error              { return e.cause }

// DeniedError returns a denial as gRPC tells it: RESOURCE_EXHAUSTED, with RetryInfo if there is a RetryAfter, and
// QuotaFailure with quota as the subject and the limit as the description. In the same process it also matches
// [peerlimit.ErrLimited].
func DeniedError(quota string, d peerlimit.Decision) error {
	s := status.Newf(codes.ResourceExhausted, "%s: limit exceeded, retry after %v", quota, d.RetryAfter)
	violation := &errdetails.QuotaFailure_Violation{Subject: quota}
	if d.Limit.Period > 0 {
		violation.Description = d.Limit.String()
	}
	failure := &errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{violation}}
	detailed, err := s.WithDetails(failure)
	if err == nil && d.RetryAfter > 0 {
		detailed, err = s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d.RetryAfter)}, failure)
	}
	if err == nil { // details that cannot be encoded, such as a name that is not UTF-8, are left out
		s = detailed
	}
	return &callError{s, &peerlimit.LimitedError{Decision: d}}
}

// FailedError returns as a status why nothing was decided: INVALID_ARGUMENT when there is no valid key,
// RESOURCE_EXHAUSTED when the cost is above the burst, INTERNAL when cost or limit make no sense, and otherwise, as when
// the node was closed, UNAVAILABLE. In the same process it also matches err. It is nil for nil.
func FailedError(err error) error {
	if err == nil {
		return nil
	}
	code := codes.Unavailable
	switch {
	case errors.Is(err, ErrNoKey), errors.Is(err, peerlimit.ErrInvalidKey):
		code = codes.InvalidArgument
	case errors.Is(err, peerlimit.ErrExceedsBurst):
		code = codes.ResourceExhausted
	case errors.Is(err, peerlimit.ErrInvalidCost), errors.Is(err, peerlimit.ErrInvalidLimit):
		code = codes.Internal
	}
	return &callError{status.New(code, err.Error()), err}
}

// denied returns the error for a denial; nil lets the call pass.
func (l *Limit) denied(ctx context.Context, call Call, d peerlimit.Decision) error {
	if l.options.Denied != nil {
		return l.options.Denied(ctx, call, d)
	}
	if l.options.Name != "" {
		return DeniedError(l.options.Name, d)
	}
	return DeniedError(call.Method, d)
}

// failed returns the error for a call about which nothing was decided; nil lets it pass.
func (l *Limit) failed(ctx context.Context, call Call, err error) error {
	if ended := ctx.Err(); ended != nil {
		return &callError{status.FromContextError(ended), fmt.Errorf("grpclimit: %w", ended)}
	}
	if l.options.Failed != nil {
		return l.options.Failed(ctx, call, err)
	}
	return FailedError(err)
}
