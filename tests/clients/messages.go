// usage: messages MODEL PROMPT - a streamed message by net/http alone; prints the text.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	body, _ := json.Marshal(map[string]any{
		"model": os.Args[1], "max_tokens": 64, "stream": true,
		"messages": []any{map[string]string{"role": "user", "content": os.Args[2]}},
	})
	url := "https://api.anthropic.com/v1/messages"
	request, _ := http.NewRequest("POST", url, bytes.NewReader(body))
	request.Header.Set("x-api-key", "dummy-key")
	request.Header.Set("anthropic-version", "2023-06-01")
	request.Header.Set("content-type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	text := ""
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		data := strings.TrimPrefix(lines.Text(), "data: ")
		var event struct{ Delta struct{ Text string } }
		if json.Unmarshal([]byte(data), &event) == nil {
			text += event.Delta.Text
		}
	}
	out, _ := json.Marshal(map[string]string{"text": text})
	fmt.Println(string(out))
}
