"""Binance USD-M perpetual futures: streams, REST, request weight, and the shapes of what they say.

Nothing in here knows about bars: `stream` hands over frames as they came, `rest` hands over
rows as the exchange spells them. EXCHANGE.md's facts that the code relies on stand beside it.
"""
