// usage: go run tls_get.go HOST PORT CA_FILE - a TLS handshake; prints ok or the reason.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

func main() {
	host, port, caFile := os.Args[1], os.Args[2], os.Args[3]
	pem, err := os.ReadFile(caFile)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{ServerName: host, RootCAs: roots}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+port, config)
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	conn.Close()
	fmt.Println("ok")
}
