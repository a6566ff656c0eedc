// The reference: Go's net/http in front of franz-go. It answers once the broker has acknowledged
// (acks=all, idempotent), and does nothing else: no credentials, no limits, no spool, no metrics.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func newID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		log.Fatal(err)
	}
	milliseconds := time.Now().UnixMilli()
	for i := 0; i < 6; i++ {
		id[i] = byte(milliseconds >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	text := hex.EncodeToString(id[:])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

// stored returns a record's headers as Casewire writes them: CloudEvents', then the request's.
func stored(request *http.Request, id string) []kgo.RecordHeader {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")
	headers := []kgo.RecordHeader{
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_id", Value: []byte(id)},
		{Key: "ce_source", Value: []byte("/commcare/demo")},
		{Key: "ce_type", Value: []byte("org.commcare.forwarded")},
		{Key: "ce_time", Value: []byte(now)},
		{Key: "casewire-domain", Value: []byte("demo")},
		{Key: "casewire-method", Value: []byte(request.Method)},
		{Key: "casewire-path", Value: []byte(request.URL.Path)},
		{Key: "casewire-origin", Value: []byte("live")},
	}
	for name, values := range request.Header {
		for _, value := range values {
			headers = append(headers, kgo.RecordHeader{Key: strings.ToLower(name), Value: []byte(value)})
		}
	}
	return headers
}

func main() {
	bind := flag.String("bind", "127.0.0.1:8080", "")
	brokers := flag.String("brokers", "127.0.0.1:9092", "")
	topic := flag.String("topic", "casewire.captured", "")
	withHeaders := flag.Bool("headers", false, "store the headers that Casewire stores")
	flag.Parse()

	client, err := kgo.NewClient(
		kgo.SeedBrokers(*brokers),
		kgo.DefaultProduceTopic(*topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Ping(context.Background()); err != nil {
		log.Fatal(err)
	}
	forward := func(writer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			http.Error(writer, "the body broke off", http.StatusBadRequest)
			return
		}
		id := newID()
		record := &kgo.Record{Key: []byte(id), Value: body}
		if *withHeaders {
			record.Headers = stored(request, id)
		}
		if err := client.ProduceSync(request.Context(), record).FirstErr(); err != nil {
			http.Error(writer, "not stored", http.StatusServiceUnavailable)
			return
		}
		writer.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(writer, `{"id": "`+id+`", "stored": "kafka"}`)
	}
	log.Fatal(http.ListenAndServe(*bind, http.HandlerFunc(forward)))
}
