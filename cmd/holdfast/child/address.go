package child

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddress finds a TCP port on the loopback interface that a gateway can have
// again after each restart: it is below those that Linux takes for outgoing
// connections (net.ipv4.ip_local_port_range, 32768 and up).
func FreeAddress() (string, error) {
	var err error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000))
		var ln net.Listener
		if ln, err = net.Listen("tcp", address); err == nil {
			return address, ln.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
