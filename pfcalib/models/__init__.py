"""Networks and trees that tell neutral from charged pions; builders take a frozen configuration and
return an untrained model.
"""
