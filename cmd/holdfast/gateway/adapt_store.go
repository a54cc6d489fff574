package gateway

import (
	"holdfast/edge"
	"holdfast/storage"
)

// sessionStore is edge.Store over the storage. Only the type of the queue
// differs: the broker sees of it what a session needs.
type sessionStore struct{ *storage.Store }

func (s sessionStore) Outbox(clientID string) (edge.Outbox, error) {
	return s.SessionQueue(clientID)
}
