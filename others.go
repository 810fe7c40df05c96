package peerlimit

import (
	"context"
	"time"
)

// others is what the parts of a node need of it to speak with other members: their interfaces in one place.
type others struct{ node *Node }

// Owner returns the member that the ring names as the owner of a partition; "" is this node.
func (o others) Owner(part uint16) string {
	if owner := o.node.route.Load().owner(part); owner != nil {
		return owner.Name
	}
	return ""
}

// Tell sends a member a request, on every other try by way of another one, and returns the response.
func (o others) Tell(ctx context.Context, to string, request []byte, timeout time.Duration, try int) ([]byte, error) {
	return o.node.tell(ctx, to, request, timeout, try)
}
