package storage

import (
	"crypto/sha256"
	"encoding/binary"

	"holdfast"
)

// The first byte of each key. docs/format.md draws them.
const (
	keyFormat  = 'f' // f: version of this layout
	keyCounter = 'i' // i: next queue id
	keyMeta    = 'm' // m | queue u32 | kind | ...: what is small and read when the store opens
	keyBatch   = 'b' // b | queue u32 | lane | chunk u32 | first position u64
	keyRemoved = 'd' // d | queue u32: a queue whose rows are to be removed
	keyAge     = 't' // t: how long messages have been in the store. Rows that are written again and
	// again stand behind the batches: before them, each merge would rewrite them all
	keyLives      = 'v' // v: lives of the store, for positions that are never written
	keyRetained   = 'r' // r | SHA-256 of topic
	keyWill       = 'w' // w | SHA-256 of client identifier
	keyQuarantine = 'x' // x | queue u32 | lane | position u64
	keyDamaged    = 'z' // z | queue u32 | lane | chunk u32 | first position u64
)

// The kinds of rows below keyMeta.
const (
	metaName     = 0 // name and kind of the queue
	metaLane     = 1 // | lane: its progress
	metaChunk    = 2 // | lane | chunk u32: its first position
	metaRoute    = 3 // | route u32: name and counts
	metaSession  = 4 // subscriptions and expiry
	metaInbound  = 5 // | packet identifier u16
	metaReleased = 6 // | position u64
	metaFar      = 7 // name of the session at the far broker
	metaBound    = 8 // | packet identifier u16: the item that it belongs to
)

func queueKey(kind byte, queue uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, queue)
}

func metaKey(queue uint32, kind byte) []byte {
	b := make([]byte, 0, 16)
	b = append(b, keyMeta)
	b = binary.BigEndian.AppendUint32(b, queue)
	return append(b, kind)
}

func laneKey(queue uint32, lane holdfast.Lane) []byte {
	return append(metaKey(queue, metaLane), byte(lane))
}

func chunkKey(queue uint32, lane holdfast.Lane, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32(append(metaKey(queue, metaChunk), byte(lane)), chunk)
}

func routeKey(queue, route uint32) []byte {
	return binary.BigEndian.AppendUint32(metaKey(queue, metaRoute), route)
}

func inboundKey(queue uint32, id uint16) []byte {
	return binary.BigEndian.AppendUint16(metaKey(queue, metaInbound), id)
}

func isInboundKey(k []byte) bool { return len(k) == 8 && k[0] == keyMeta && k[5] == metaInbound }

func releasedKey(queue uint32, pos uint64) []byte {
	return binary.BigEndian.AppendUint64(metaKey(queue, metaReleased), pos)
}

func boundKey(queue uint32, id uint16) []byte {
	return binary.BigEndian.AppendUint16(metaKey(queue, metaBound), id)
}

// batchPrefix is the prefix of all batches of one lane.
func batchPrefix(kind byte, queue uint32, lane holdfast.Lane) []byte {
	b := make([]byte, 0, 20)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, queue)
	return append(b, byte(lane))
}

func batchChunkPrefix(queue uint32, lane holdfast.Lane, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32(batchPrefix(keyBatch, queue, lane), chunk)
}

func batchKey(queue uint32, lane holdfast.Lane, chunk uint32, first uint64) []byte {
	return binary.BigEndian.AppendUint64(batchChunkPrefix(queue, lane, chunk), first)
}

// batchKeyLen is the length of every key of a batch.
const batchKeyLen = 1 + 4 + 1 + 4 + 8

// splitBatchKey returns chunk and first position of a batch's key.
func splitBatchKey(k []byte) (chunk uint32, first uint64, ok bool) {
	if len(k) != batchKeyLen {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(k[6:]), binary.BigEndian.Uint64(k[10:]), true
}

func quarantineKey(queue uint32, lane holdfast.Lane, pos uint64) []byte {
	return binary.BigEndian.AppendUint64(batchPrefix(keyQuarantine, queue, lane), pos)
}

// hashedKey is the key for a name that may be longer than a key of the engine.
// The value has the name again; two names with one key would be a collision of
// SHA-256.
func hashedKey(kind byte, name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return append([]byte{kind}, sum[:]...)
}
