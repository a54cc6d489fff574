package gateway

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"holdfast/bridge"
	"holdfast/configs"
)

// What check takes, a bridge takes.
func TestTheLargestWindowIsTheSameForCheckAndForABridge(t *testing.T) {
	field, _ := reflect.TypeFor[configs.Queue]().FieldByName("Window")
	most, err := strconv.Atoi(field.Tag.Get("max"))
	if err != nil {
		t.Fatal(err)
	}
	for window, good := range map[int]bool{most: true, most + 1: false} {
		_, err := bridge.New(bridge.Options{Window: window})
		if refused := strings.Contains(fmt.Sprint(err), "window is"); refused == good {
			t.Errorf("%d: %v", window, err)
		}
	}
}
