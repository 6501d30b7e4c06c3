"""A stand-in for the Telegram Bot API: one bot, its webhook and its pending updates.

    python3 -m telegram --listen 0.0.0.0:8081 --token-file /etc/telegram/tokens --trust /etc/telegram/acme-root.pem

/bot<token>/METHOD answers as Telegram does (GET, form or JSON). Updates are posted to the webhook as Telegram posts
them: HTTPS with a verified chain, IPv4 only, keep-alive, one after another within a chat and in parallel between chats.
Any 2xx is success, and every other answer leads to another attempt. The lab causes and observes events under /lab/:

    POST /lab/updates {"count": 1, "text": "/start", "chat_id": 7}   new messages; without chat_id each has a new chat
                                          -> {"update_ids": [...]}
    POST /lab/repeat  {"update_id": 5}    send the update once more: Telegram promises at least once, not exactly once
    GET  /lab/updates?from=1&to=9         -> {"updates": [{"update_id", "attempts", "deliveries", "last_status"}]}
    GET  /lab/messages                    -> {"messages": [...]}, which the bot sent
    GET  /lab/calls                       -> {"calls": [{"method", "from"}]}, the calls of this API and their origin
    POST /lab/forget                      drop updates, counts, messages and calls; the webhook stays

Delays and error messages follow github.com/tdlib/telegram-bot-api (WebhookActor.cpp, Client.cpp) with two exceptions:
a refused connection waits like any other failure (Telegram probes every 2 s), and private addresses are allowed.
State is kept in memory. Neither token nor secret is logged. Needs aiohttp 3.11 (Debian 13: python3-aiohttp).
"""
