"""From two types to a plan: propose, price, choose.

problem                      the pair of types, with limit, profile and effort
choose                       `plan`, `cost` and `explain`: read this first
proposals, candidate         what each strategy proposes, and the cheapest of it
rewriting                    the types between which is planned: cut_axes, normal_form, ordered,
                             and relabel, which brings the steps back
chains, three_phase, exchange_phase, by_link   collectives, where digits match; `floors`: what
                             they take at least
halfway, meeting, near, exact, type_graph      searches, where they do not
reductions                   partial sums, around all of these
across, uneven               to another mesh; between uneven types
prime_digits, halfway_type   the types that searches pass through; `work`: how long they look
detours                      ways through other layouts, and prices of many pairs at once
paper                        the route of the paper, for comparison
"""
