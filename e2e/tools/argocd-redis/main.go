// The cache between Argo CD's components: the part of Redis that they use, in memory, on one address.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: argocd-redis HOST:PORT")
		os.Exit(2)
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go age(server)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	server.Close()
}

// age lets keys expire: the server's clock stands still unless it is told that time passed.
func age(server *miniredis.Miniredis) {
	for before := range time.Tick(time.Second) {
		server.FastForward(time.Since(before) + time.Second)
	}
}
