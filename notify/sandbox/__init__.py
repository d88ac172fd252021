"""A stand-in for Twilio and FCM on this machine. It speaks their protocols, shows what it got, fails on request.

Numbers and tokens that mean something, the numbers being those of Twilio's own test credentials:
`+15005550001` invalid, `…02` not routable, `…03` no permission for the region, `…04` unsubscribed, `…09` no mobile;
`+15005550001` as a sender is invalid too. A push token that begins with `unregistered` belongs to an app that was
removed, one that begins with `invalid` was never a token.
"""
