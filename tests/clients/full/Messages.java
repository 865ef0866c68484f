// usage: java Messages.java MODEL PROMPT - a message by the JDK's own HttpClient; prints the answer.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

class Messages {
    public static void main(String[] args) throws Exception {
        String body = "{\"model\":\"" + args[0] + "\",\"max_tokens\":64,\"messages\":"
            + "[{\"role\":\"user\",\"content\":\"" + args[1] + "\"}]}";
        HttpRequest request = HttpRequest.newBuilder(URI.create("https://api.anthropic.com/v1/messages"))
            .header("x-api-key", "dummy-key")
            .header("anthropic-version", "2023-06-01")
            .header("content-type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        HttpResponse<String> answer =
            HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.body());
    }
}
