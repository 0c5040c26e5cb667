package stale

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

func TestTry(t *testing.T) {
	if os.Getenv("TRY") == "" {
		t.Skip()
	}
	b := time.Now()
	rep, err := Find(t.Context(), Options{MapsOnly: os.Getenv("TRY") == "maps", Open: os.Getenv("TRY") == "open"})
	fmt.Println(time.Since(b), err)
	j, _ := json.MarshalIndent(rep, "", " ")
	fmt.Println(string(j))
}
