"""Orders: quote, hold, settle and refund of anything sold; allowances of the gateways and the bills of hosted calls."""
