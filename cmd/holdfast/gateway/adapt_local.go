package gateway

import (
	"holdfast"
	"holdfast/edge"
)

// local is bridge.Local over the broker. The broker is made after the bridges,
// since it asks them about every message; bridges run only when it is there.
type local struct{ broker *edge.Server }

// bridgeLocal is bridge.ExactLocal for the bridge with that queue.
type bridgeLocal struct {
	*local
	queue string // its name in the store
}

func (l bridgeLocal) PublishOnce(msg *holdfast.Message, id uint16, done func(error)) {
	l.broker.PublishInbound(msg, &holdfast.Inbound{Queue: l.queue, PacketID: id}, done)
}

func (l *local) Publish(msg *holdfast.Message, done func(error)) { l.broker.Publish(msg, done) }
