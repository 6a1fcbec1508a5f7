"""The serving half of Guanmo: contract, launch, gateway and pool; it leaves money, tenants and catalogue to the hub."""
