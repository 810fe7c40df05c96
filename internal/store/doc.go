// Package store keeps the buckets of a node by partition, and what the node knows about the holder of each.
//
// [Table] decides takes: its operations on one bucket lock the bucket's partition, look whether this node decides about it,
// and do what they are for. The packages that acquire, give and replicate partitions lock one by [Table.Lock] and change its
// [Partition.Holding]; [Partition.Unlock] publishes what others see of it without the lock. What is done to many buckets is
// done in steps, see [Table.InSteps], so that no take waits long for the lock.
package store
